"""One self-contained HTML page of a study, with its tables as CSV and LaTeX and its figures as PNG and PDF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from analysis.plots import Plot
from analysis.sections import Part, attacks, sections, winners
from analysis.study_folder import StudyResults, read
from analysis.tables import Pairs, Table, keep
from analysis.trials import trials


class Outcome(NamedTuple):
    """The HTML page, and for a terminal the winners and the worst attack on each: every cell is ready to print."""

    page: Path
    winners: pd.DataFrame
    recovery: pd.DataFrame


class Block(NamedTuple):
    """A part of a section as the page shows it."""

    kind: str
    content: Any


def build(root: Path, cold: Path | None = None) -> Outcome:
    """Bring `report/` up to date with what is on disk; `cold` is the same study started without a warm start.

    Raises `FileNotFoundError` if `root` is no study and `ValueError` that names a damaged file.
    """
    study = read(root, cold)
    folder = study.folder.report
    found = [(section, list(section.parts(study))) for section in sections()]
    kept = {path for _, parts in found for part in parts for path in _write(part, study, folder)}
    for path in {path for kind in ("figures", "tables") for path in (folder / kind).glob("*")} - kept:
        path.unlink()  # of sections, trials or attacks that are no longer there
    shown = [(section, list(_blocks(parts, folder))) for section, parts in found]
    page = study.folder.page
    keep(page, _template().render(study=study, sections=[(s.title, blocks) for s, blocks in shown if blocks],
                                  trials=list(trials(study)["state"])))  # fmt: skip
    return Outcome(page, winners.printed(study), attacks.printed(study))


def _write(part: Part, study: StudyResults, folder: Path) -> Iterator[Path]:
    """Write the files of a part; their paths."""
    if isinstance(part, Table):
        yield from part.write(folder / "tables")
    elif isinstance(part, Plot) and not part.data.empty:
        yield from part.write(folder, study.methods)


def _blocks(parts: list[Part], folder: Path) -> Iterator[Block]:
    """The parts that the page shows: all that are not empty."""
    for part in parts:
        if isinstance(part, str):
            yield Block("sentence", part)
        elif isinstance(part, Pairs):
            yield Block("pairs", part)
        elif isinstance(part, Table):
            if not part.shown.empty:
                yield Block("table", part)
        elif not part.data.empty:
            yield Block("figure", part.embedded(folder))


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.jinja")
