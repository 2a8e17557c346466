"""The race: the best few trials of each method, run with further seeds before a winner was named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis import naming
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.tables import Table, number
from study.core.records import read_races
from study.metrics.racing import still_racing

COLUMNS = ["method", "ratio", "key", "first", "distance", "seeds", "outcome"]


def parts(study: StudyResults) -> Iterator[Part]:
    """Who raced, how far each came, and who won; nothing where nobody met a second seed."""
    raw = race(study)
    if (raw["seeds"] > 1).any():
        yield race_table(raw)


def race(study: StudyResults) -> pd.DataFrame:
    """One line for each contender: its distance to the ideal point for the first seed and as a mean over all of its
    seeds, on the validation half."""
    lines: list[dict[str, Any]] = []
    for one in read_races(study.folder):
        racing = one.racing or still_racing({run.trial: run.distances for run in one.runs})
        for run in one.runs:
            found = run.distances
            lost = "behind" if run.trial in racing else "dropped"
            lines.append({
                "method": one.method, "ratio": one.ratio, "key": run.trial, "first": found[0],
                "distance": sum(found) / len(found), "seeds": len(found),
                "outcome": "winner" if run.trial == one.best else lost,
            })  # fmt: skip
    return pd.DataFrame(lines, columns=COLUMNS)


def race_table(raw: pd.DataFrame) -> Table:
    """The table of the report."""
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method), "trial": raw["key"],
        "first seed": raw["first"].map(number), "all its seeds": raw["distance"].map(number),
        "seeds": raw["seeds"].astype(str), "outcome": raw["outcome"],
    })  # fmt: skip
    return Table(
        "race", "Race",
        "Distances to the ideal point on the validation half, of the best few trials of each method by one seed and of "
        "the default. Dropped: significantly behind after its last seed. The smallest mean of the others won.",
        raw, shown,
    )  # fmt: skip


SECTION = Section("Race", 105, parts)
