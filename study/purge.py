"""Remove from a study what still holds the forgotten, and leave the evidence: `mus purge runs/<study>`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from study.core.erasure import LINK, Holding, holdings, purge
from study.core.errors import Refused
from study.core.files import read_json
from study.core.hashing import Json
from study.core.layout import StudyFolder
from study.core.lock import locked
from study.core.records import read_study, read_winners

MIRROR = "A copy of the study at a storage address, back-ups and exports elsewhere are not touched."


def main(arguments: list[str] | None = None) -> int:
    """Say what would be removed, or remove it. Returns 0, or 2 if that cannot be done, with the reason."""
    parser = argparse.ArgumentParser(prog="mus purge", description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of a study with evidence, such as runs/tiny")
    parser.add_argument("--yes", action="store_true", help="remove the files; without it they are only listed")
    parser.add_argument("--without-model", action="store_true", help="remove them though the unlearned model was not "
                        "exported into the study, and cannot be put together again without vanilla")  # fmt: skip
    asked = parser.parse_args(arguments)
    folder = StudyFolder(asked.study)
    try:
        _check_evidence(folder)
        if asked.yes:
            print("\n".join(_remove(folder, without_model=asked.without_model)))
        else:
            print("\n".join([*_listed(_held(folder)), *_lost(folder), f"{MIRROR} Nothing was removed: add --yes."]))
    except (OSError, ValueError, Refused) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _remove(folder: StudyFolder, *, without_model: bool) -> list[str]:
    """Remove what holds the forgotten, as it is found once no run can change it any more; says what was done."""
    with locked(folder):
        _check_evidence(folder)
        found = _held(folder)
        if links := [hold.name for hold in found if hold.reason == LINK]:
            raise ValueError(
                f"{folder.root} has links to other folders, which a purge does not enter: {', '.join(links)}. Put the "
                "folders themselves in their place, or remove the links, and see to what they lead to yourself"
            )
        if (lost := _lost(folder)) and not without_model:
            raise ValueError(" ".join([*lost, "Or add --without-model, if it was exported elsewhere or may be lost."]))
        purge(folder, found)
    left = [hold.name for hold in found if not hold.removable]
    count = len(found) - len(left)
    done = f"{_files(count)} {'was' if count == 1 else 'were'} removed, as {folder.purged} lists. {MIRROR}"
    return [done, *(f"left, for you to look at: {name}" for name in left)]


def _evidence(folder: StudyFolder) -> list[Json]:
    return [read_json(one.record) for one in folder.evidences()]


def _check_evidence(folder: StudyFolder) -> None:
    """Raise `ValueError` unless there is evidence, all of it on winners that the study still has, with their weights.

    Once a study was purged nothing of this can change, nor be mended.
    """
    evidence = _evidence(folder)
    if not evidence:
        read_study(folder)  # whatever else a folder is, it cannot have evidence
        raise ValueError(
            f"{folder.root} has no evidence, and none can be made once it is purged: run `mus evidence "
            f"{folder.root} METHOD@RATIO` first"
        )
    if folder.purged.exists():
        return
    winners = read_winners(folder)
    for one in evidence:
        keys, name = one["model"]["keys"], one["winner"]
        if winners.get(one["method"], {}).get(one["ratio"], ()) != tuple(keys):
            raise ValueError(
                f"the evidence on {name} is out of date: another model has won since. Run `mus evidence "
                f"{folder.root} {name}` again"
            )
        if gone := [key for key in keys if not (folder.delta(key).exists() or folder.export(key).exists())]:
            raise ValueError(
                f"the weights of {name} are missing in trials {', '.join(gone)}: run the command of the study again, "
                "which computes them anew"
            )


def _held(folder: StudyFolder) -> list[Holding]:
    """What holds the people of any of the requests, without the models that there is evidence on."""
    evidence = _evidence(folder)
    products = {key for one in evidence for key in one["model"]["keys"]}
    return holdings(folder, products, [(one["request"]["goal"], one["ratio"]) for one in evidence])


def _listed(found: Sequence[Holding]) -> list[str]:
    """Every file under the reason why it is listed."""
    lines = []
    for reason in dict.fromkeys(hold.reason for hold in found):
        mine = [hold for hold in found if hold.reason == reason]
        lines.append(f"{_files(len(mine))}, {sum(hold.bytes for hold in mine):,} bytes: {reason}")
        lines += [f"  {hold.name}" for hold in mine]
    return lines


def _lost(folder: StudyFolder) -> list[str]:
    """The models that nobody could put together again, because they are kept only as a difference to vanilla."""
    return [
        f"{one['winner']} was not exported into the study, which keeps only its difference to vanilla: run `mus export "
        f"{folder.root} {one['winner']}` first, then `mus evidence` again, for the digest of what is exported."
        for one in _evidence(folder)
        if not folder.export(one["model"]["keys"][0]).exists() and folder.model_dir(one["model"]["start"]).exists()
    ]


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


if __name__ == "__main__":
    sys.exit(main())
