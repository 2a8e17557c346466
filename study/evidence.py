"""The evidence on a winner, for those who must prove deletion: `mus evidence runs/<study> vkd@20`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.evidence.build import build, reopen
from analysis.evidence.statement import SIGN
from analysis.study_folder import read
from study.core.files import read_json
from study.core.layout import EvidenceFolder, StudyFolder
from study.core.plugins import check


def main(arguments: list[str] | None = None) -> int:
    """Write the evidence and print where it is. Returns 0, or 2 if that cannot be done, with the reason.

    Of a study that was purged the page is made anew from the record that is left.
    """
    parser = argparse.ArgumentParser(prog="mus evidence", description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of a finished study, such as runs/tiny")
    parser.add_argument("winner", help="METHOD@RATIO, as in vkd@20")
    parser.add_argument("--out", type=Path, help="the folder to write; default evidence/METHOD@RATIO in the study")
    asked = parser.parse_args(arguments)
    folder = StudyFolder(asked.study)
    try:
        if folder.purged.exists():
            there = _left(folder, asked.winner)
            claim = reopen(there)["claim"]
        else:
            there = build(read(asked.study), asked.winner, asked.out)
            claim = read_json(there.record)["claim"]
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{claim['standing']}: {claim['sentence']}")
    print(there.page)
    print(f"To sign it, in {there.root}: {SIGN[0]}")
    return 0


def _left(folder: StudyFolder, winner: str) -> EvidenceFolder:
    """The evidence on a winner of a study that was purged. Raises `ValueError` that names what there is."""
    found = {read_json(one.record)["winner"]: one for one in folder.evidences()}
    check(f"evidence that is left in {folder.root}, which was purged", winner, tuple(found))
    return found[winner]


if __name__ == "__main__":
    sys.exit(main())
