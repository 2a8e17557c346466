"""One self-contained HTML page of a study, with its tables as CSV and LaTeX and its figures as PNG and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis import page
from analysis.live import anchor
from analysis.plots import Plot
from analysis.sections import Part, attacks, health, sections, winners
from analysis.study_folder import StudyResults, read
from analysis.tables import Table
from analysis.trials import trials, with_keys
from study.core.garbage import seldom_collected


class Outcome(NamedTuple):
    """The HTML page, and for a terminal the winners, the worst attack on each, and the health of the search.

    Every cell is ready to print.
    """

    page: Path
    winners: pd.DataFrame
    recovery: pd.DataFrame
    pasted: Sequence[str]
    """The winners as `--methods` takes them."""
    checks: Sequence[str]
    """What stands out in the health of the search; nothing if all is well."""


@seldom_collected()
@pd.option_context("mode.string_storage", "python")  # Arrow takes longer to choose among so few rows
def build(root: Path, cold: Path | None = None, *, checked: bool = True, paper: bool = False) -> Outcome:
    """Bring `report/` up to date with what is on disk; `cold` is the same study started without a warm start.

    The study's files are `checked` first (`read`). With `paper` what a paper takes is written as well.

    Raises `FileNotFoundError` if `root` is no study and `ValueError` that names a damaged file.
    """
    study = read(root, cold, checked=checked)
    folder = study.folder
    links = {key: f"#{anchor(key)}" for key in study.trials}
    found = [(section.title, [_keyed(study, part) for part in section.parts(study)]) for section in sections()]
    kept = page.write(
        "report.html.jinja", folder.page, found, study.methods, links,
        study=study, name=study.name, trials=list(trials(study)["state"]),
    )  # fmt: skip
    for path in {path for kind in ("figures", "tables") for path in (folder.report / kind).glob("*")} - kept:
        path.unlink()  # of sections, trials or attacks that are no longer there
    if paper:
        from analysis.paper import document  # with what the page does without

        document.build(study)
    return Outcome(
        folder.page, winners.printed(study), attacks.printed(study), winners.pasted(study), health.sentences(study)
    )


def _keyed(study: StudyResults, part: Part) -> Part:
    """A part whose numbers say which trial they are of."""
    if isinstance(part, Table):
        return part._replace(raw=with_keys(study, part.raw))
    return part._replace(data=with_keys(study, part.data)) if isinstance(part, Plot) else part
