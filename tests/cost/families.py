"""`python -m tests.cost.families`: which families a study can use, tried on tiny models, as a table in the docs.

Families whose packages are not installed keep what an earlier run found; `pip install '.[vision]'` lets all be tried.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers.utils import logging

from study.benchmarks.synthetic import Synthetic
from study.core.console import console
from study.data.benchmark import Benchmark
from tests import ROOT
from tests.helpers.newcomers import NEWCOMERS, can_be_made, needs, newcomer_folder
from tests.helpers.study_path import refused, walk

FOUND = ROOT / "docs" / "families.csv"
PAGE = ROOT / "docs" / "new-base-model.md"
BEGIN, END = "<!-- families: written by python -m tests.cost.families -->\n", "<!-- end of families -->\n"
RUNS, UNTRIED = "runs", "not tried yet"


def main(names: Sequence[str]) -> None:
    """Try the families that can be made here, all or the named ones, and write what was found."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found = read()
    with tempfile.TemporaryDirectory() as place:
        benchmark = Synthetic(people=20, celebrities=8, views=2, strangers=8)(Path(place) / "benchmark")
        for name in names or NEWCOMERS:
            if can_be_made(name):
                here = Path(place) / name
                folder = newcomer_folder(name, here)
                found[name] = refused(name, folder) or _walked(name, folder, benchmark, here)
                console.print(f"{name}: {found[name]}", markup=False)
                _write(found)  # what was found is kept if a later family takes too long


def _write(found: Mapping[str, str]) -> None:
    with FOUND.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("family", "found"), *((name, found.get(name, UNTRIED)) for name in NEWCOMERS)])
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), read()), encoding="utf-8")


def _walked(name: str, folder: Path, benchmark: Benchmark, place: Path) -> str:
    try:
        walk(name, folder, benchmark, place)
    except Exception as error:  # of any kind: it is what was found
        return f"a study fails ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
    return RUNS


def read() -> dict[str, str]:
    """What was found of each family: `runs`, or why it is refused."""
    if not FOUND.exists():
        return {}
    with FOUND.open(encoding="utf-8", newline="") as file:
        return {row["family"]: row["found"] for row in csv.DictReader(file)}


def written(page: str, found: Mapping[str, str]) -> str:
    """The page with its table of families."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    rows = [f"| `{name}` | {needs(name)} | {what.replace('|', '/')} |" for name, what in found.items()]
    running = sum(what == RUNS for what in found.values())
    head = ["", f"Of these {len(found)} families {running} run:", "", "| family | needs | found |", "|---|---|---|"]
    return before + BEGIN + "\n".join([*head, *rows, "", END]) + after


if __name__ == "__main__":
    main(sys.argv[1:])
