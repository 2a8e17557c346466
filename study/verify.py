"""Check every file of a study, its weights too: `python -m study.verify runs/<study>`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from study.core import inventory
from study.core.files import read_json
from study.core.hashing import file_digest
from study.core.layout import StudyFolder
from study.core.records import LearnedRecord, read_record
from study.model.tensor_files import digest_beside


def problems(folder: StudyFolder) -> Iterator[str]:
    """What is missing, damaged or foreign, each with what to do."""
    for problem in inventory.problems(folder):
        yield str(problem)
    for name in inventory.foreign(folder):
        yield f"{name} was not left by the last run; look at it, and remove {folder.root / name} if it is not yours"
    for path in _damaged_weights(folder):
        name = path.relative_to(folder.root).as_posix()
        yield f"{name} is damaged: remove {folder.root / folder.remedy(name)} and run the same command again"


def _damaged_weights(folder: StudyFolder) -> Iterator[Path]:
    """Weights whose digest is not the recorded one; those that are missing are told by the inventory."""
    for record in folder.learned_records():
        model = folder.model_dir(record.parent.name)
        for name, digest in read_record(LearnedRecord, record).sha256.items():
            if (model / name).exists() and file_digest(model / name) != digest:
                yield model / name
    for trial in folder.trial_records():
        delta = folder.delta(trial.parent.name)
        noted = digest_beside(delta)
        if delta.exists() and not (noted.exists() and read_json(noted) == {"sha256": file_digest(delta)}):
            yield delta


def _sound(folder: StudyFolder) -> str:
    """What was found to be as it was written."""
    if inventory.is_taken(folder):
        return "every file is as it was written"
    return "all weights are as they were written; a run lists the other files as it ends, so they were not checked"


def main(arguments: list[str] | None = None) -> int:
    """Print what is wrong. Returns 0 if nothing is, 1 if something is, or 2 if there is no study."""
    parser = argparse.ArgumentParser(prog="python -m study.verify", description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of the study, such as runs/tiny")
    folder = StudyFolder(parser.parse_args(arguments).study)
    if not folder.root.is_dir():
        print(f"error: {folder.root} is no folder; name a study such as runs/tiny", file=sys.stderr)
        return 2
    try:
        found = list(problems(folder))
    except (OSError, ValueError) as error:
        found = [str(error)]
    print("\n".join(found) or f"{folder.root}: {_sound(folder)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
