"""One section of the report is one file in this folder, or in that of a plug-in package, found because it is there.

It defines `SECTION`. A file with an underscore holds numbers that several sections show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from analysis.plots import Plot
from analysis.study_folder import StudyResults
from analysis.tables import Pairs, Table
from study.core.plugins import of_others

Part = str | Table | Plot | Pairs
"""A sentence, a table, a figure, or names with a text for each."""


@dataclass(frozen=True)
class Section:
    """A heading and what a study shows below it. Empty parts are not shown, nor is a section without parts.

    The section without a title is the box at the top of the page.
    """

    title: str
    order: int
    """Its place on the page: sections with lower numbers come first."""
    parts: Callable[[StudyResults], Iterable[Part]]


def sections() -> list[Section]:
    """Every section, in the order of the page."""
    names = sorted(path.stem for folder in __path__ for path in Path(folder).glob("[!_.]*.py"))
    modules = [*(f"{__name__}.{name}" for name in names), *of_others("sections").values()]
    found: list[Section] = [import_module(module).SECTION for module in modules]
    return sorted(found, key=lambda section: section.order)
