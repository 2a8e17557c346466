"""One section of the report is one file in this folder, or in that of a plug-in package, found because it is there.

It defines `SECTION`. A file with an underscore holds numbers that several sections show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from analysis.live import Drawing
from analysis.plots import Plot
from analysis.study_folder import StudyResults
from analysis.tables import Pairs, Pasted, Table
from study.core.plugins import SECTIONS, imported, of_others


class Fold(NamedTuple):
    """Parts that the page shows when the reader unfolds them, or follows a link to `anchor`."""

    anchor: str
    title: str
    parts: Sequence[Part]
    record: str = ""
    """Where the record of what it is about lies, from the page."""


Part = str | Table | Plot | Drawing | Pairs | Pasted | Fold
"""A sentence, a table, a figure, one without files, names with a text for each, text to be copied, or some of these
folded away."""


@dataclass(frozen=True)
class Section:
    """A heading and what a study shows below it. Empty parts are not shown, nor is a section without parts.

    The section without a title is the box at the top of the page.
    """

    title: str
    order: int
    """Its place on the page: sections with lower numbers come first, and of equal ones file names decide."""
    parts: Callable[[StudyResults], Iterable[Part]]


def sections() -> list[Section]:
    """Every section, in the order of the page."""
    names = sorted(path.stem for folder in __path__ for path in Path(folder).glob("[!_.]*.py"))
    modules = [*(f"{__name__}.{name}" for name in names), *of_others(SECTIONS).values()]
    found: list[Section] = [imported(module).SECTION for module in modules]
    return sorted(found, key=lambda section: section.order)
