"""docs/reliability.md names for each of thirty faults the tests that show what happens, and they are there."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from tests import ROOT
from tests.helpers.cases import PAGE, named

CASES = 30


@cache
def defined_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    return name.startswith("test_") and name in defined_in(ROOT / file)


def test_every_case_has_tests_that_are_there() -> None:
    found = named(PAGE.read_text(encoding="utf-8"))
    assert sorted(found) == list(range(1, CASES + 1))
    assert [case for case, tests in found.items() if not tests] == []
    assert [test for tests in found.values() for test in tests if not is_there(test)] == []


def test_a_test_that_is_not_there_is_found() -> None:
    here = "tests/test_reliability.py::test_a_test_that_is_not_there_is_found"
    page = f"| case | fault | tests |\n| 7 | two | {here} |\n| 8 | `a|b` | {here} tests/test_none.py::test_x |"
    assert named(page) == {7: [here], 8: [here, "tests/test_none.py::test_x"]}
    assert is_there(here)
    assert not any(map(is_there, ("tests/test_none.py::test_x", f"{here}_either", "tests/test_reliability.py::named")))
