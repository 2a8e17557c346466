"""Check every file of a study, its weights too: `mus verify runs/<study>`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Set
from pathlib import Path

from study.core import inventory
from study.core.errors import Damaged
from study.core.layout import StudyFolder
from study.core.records import LearnedRecord, read_record, read_study
from study.model.tensor_files import damaged_in, is_sound


def problems(folder: StudyFolder) -> Iterator[str]:
    """What is missing, damaged or foreign, each with what to do. Raises `FileNotFoundError` if there is no study."""
    named = inventory.problems(folder)
    if not inventory.is_taken(folder):
        try:
            read_study(folder)
        except Damaged as error:
            yield str(error)
    yield from map(str, named)
    for name in inventory.foreign(folder):
        yield f"{name} was not left by the last run; look at it, and remove {folder.root / name} if it is not yours"
    yield from _damaged_weights(folder, {folder.group(problem.name) for problem in named})


def _damaged_weights(folder: StudyFolder, named: Set[str]) -> Iterator[str]:
    """Weights whose digest is not the recorded one, but for those that are made anew with what was `named` already."""

    def others(path: Path) -> bool:
        return folder.group(path.relative_to(folder.root).as_posix()) not in named

    for record in filter(others, folder.learned_records()):
        try:
            digests = read_record(LearnedRecord, record).sha256
        except Damaged as error:
            yield str(error)
            continue
        for path in damaged_in(folder.model_dir(record.parent.name), digests):
            yield _told(folder, path, record.parent)
    for record in filter(others, folder.trial_records()):
        delta = folder.delta(record.parent.name)
        if delta.exists() and not is_sound(delta):
            # where nothing says what was made together with it, its record would still say that the trial has ended
            yield _told(folder, delta, delta if inventory.is_taken(folder) else record.parent)


def _told(folder: StudyFolder, path: Path, remove: Path) -> str:
    return f"{path.relative_to(folder.root)} is damaged: remove {remove} and run the same command again"


def _sound(folder: StudyFolder) -> str:
    """What was found to be as it was written."""
    if inventory.is_taken(folder):
        return "every file is as it was written"
    return "all weights are as they were written; a run lists the other files as it ends, so they were not checked"


def main(arguments: list[str] | None = None) -> int:
    """Print what is wrong. Returns 0 if nothing is, 1 if something is, or 2 if there is no study."""
    parser = argparse.ArgumentParser(prog="mus verify", description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of the study, such as runs/tiny")
    folder = StudyFolder(parser.parse_args(arguments).study)
    try:
        found = list(problems(folder))
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        found = [str(error)]
    print("\n".join(found) or f"{folder.root}: {_sound(folder)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
