"""The cases of docs/reliability.md, and the tests that it names for each."""

from __future__ import annotations

import re

from tests import ROOT

PAGE = ROOT / "docs" / "reliability.md"


def named(text: str) -> dict[int, list[str]]:
    """The tests of every case in the tables of the page."""
    lines = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    return {int(cells[0]): cells[-1].split() for cells in lines}


def cases_of() -> dict[str, list[int]]:
    """The cases of every test that the page names, as pytest calls it without parameters."""
    found: dict[str, list[int]] = {}
    for case, tests in named(PAGE.read_text(encoding="utf-8")).items():
        for test in tests:
            found.setdefault(test, []).append(case)
    return found
