"""Remove from a study what still holds the forgotten, and leave the evidence: `mus purge runs/<study>`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from study.core.erasure import Holding, holdings, purge
from study.core.errors import Refused
from study.core.files import read_json
from study.core.hashing import Json
from study.core.layout import StudyFolder
from study.core.lock import locked

MIRROR = "A copy of the study at a storage address, back-ups and exports elsewhere are not touched."


def main(arguments: list[str] | None = None) -> int:
    """Say what would be removed, or remove it. Returns 0, or 2 if that cannot be done, with the reason."""
    parser = argparse.ArgumentParser(prog="mus purge", description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of a study with evidence, such as runs/tiny")
    parser.add_argument("--yes", action="store_true", help="remove the files; without it they are only listed")
    parser.add_argument("--without-model", action="store_true", help="remove them though the unlearned model was not "
                        "exported, and cannot be put together again without vanilla")  # fmt: skip
    asked = parser.parse_args(arguments)
    folder = StudyFolder(asked.study)
    try:
        evidence = [read_json(one.record) for one in folder.evidences()]
        if not evidence:
            raise ValueError(
                f"{folder.root} has no evidence, and none can be made once it is purged: run `mus evidence "
                f"{folder.root} METHOD@RATIO` first"
            )
        found = _held(folder, evidence)
        if not asked.yes:
            print("\n".join([*_listed(found), *_lost(folder, evidence), f"{MIRROR} Nothing was removed: add --yes."]))
            return 0
        if (lost := _lost(folder, evidence)) and not asked.without_model:
            raise ValueError(" ".join([*lost, "Or add --without-model."]))
        with locked(folder):
            purge(folder, found)
    except (OSError, ValueError, Refused) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    left = [hold.name for hold in found if not hold.removable]
    print(f"{len(found) - len(left)} files were removed, as {folder.purged} lists. {MIRROR}")
    print("\n".join(f"left, for you to look at: {name}" for name in left), end="\n" * bool(left))
    return 0


def _held(folder: StudyFolder, evidence: Sequence[Json]) -> list[Holding]:
    """What holds the people of any of the requests, without the models that there is evidence on."""
    products = {key for one in evidence for key in one["model"]["keys"]}
    found = {hold.name: hold for one in evidence
             for hold in holdings(folder, products, one["request"]["goal"], one["ratio"])}  # fmt: skip
    return [found[name] for name in sorted(found)]


def _listed(found: Sequence[Holding]) -> list[str]:
    """Every file under the reason why it is listed."""
    lines = []
    for reason in dict.fromkeys(hold.reason for hold in found):
        mine = [hold for hold in found if hold.reason == reason]
        lines.append(f"{len(mine)} files, {sum(hold.bytes for hold in mine):,} bytes: {reason}")
        lines += [f"  {hold.name}" for hold in mine]
    return lines


def _lost(folder: StudyFolder, evidence: Sequence[Json]) -> list[str]:
    """The models that nobody could put together again, because they are kept only as a difference to vanilla."""
    return [
        f"{one['winner']} was not exported, and is kept only as its difference to vanilla: run `mus export "
        f"{folder.root} {one['winner']}` first, then `mus evidence` again, for the digest of what is exported."
        for one in evidence
        if not folder.export(one["model"]["keys"][0]).exists() and folder.model_dir(one["model"]["start"]).exists()
    ]


if __name__ == "__main__":
    sys.exit(main())
