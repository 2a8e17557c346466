"""CLEAR's own table: ROUGE, probability and truth ratio of its six sets, model utility and forget quality."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import pandas as pd

from analysis import naming
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults, benchmark_kind
from analysis.tables import Table, number
from study.core.records import TrialRecord
from study.metrics.clear_table import clear_scores, forget_quality

SHOWN: dict[str, Literal["up", "down"]] = {
    "Real": "up", "Retain": "up", "Forget": "down", "Model Utility": "up", "KS p-value": "up", "1 - JS": "up",
}  # fmt: skip
"""What the paper's tables have, and which end is better; the parts of these are in the CSV file."""


def parts(study: StudyResults) -> Iterator[Part]:
    """The table, of a study of CLEAR that was scored by its official protocol."""
    if len(raw := scores(study)):
        yield Table(
            "clear", "As CLEAR reports it",
            "Protocol: official, mean over seeds. Real, Retain and Forget: harmonic mean of probability and truth "
            "ratio over two sets each (real faces and real world; captions and names). Model utility: harmonic mean "
            "of ROUGE, probability and truth ratio of all sets but those to forget. KS p-value and 1 - JS: truth "
            "ratios of captions beside those of the first reference; JS compares question by question, as the "
            "authors' code does.",
            raw, _shown(raw),
        )  # fmt: skip


@lru_cache(maxsize=4)
def scores(study: StudyResults) -> pd.DataFrame:
    """One line for each model with all its numbers, each the mean over seeds; none of another benchmark."""
    lines = []
    for ratio in study.ratios if benchmark_kind(study.settings) == "Clear" else ():
        bar = _runs(study, study.yardsticks("reference", ratio)[:1])
        for label, members in study.labelled(ratio):
            found = [{**clear_scores(rows), **(forget_quality(rows, bar[0]) if bar else {})}
                     for rows in _runs(study, members)]  # fmt: skip
            if found:
                means = pd.DataFrame(found).mean(skipna=False).to_dict()
                lines.append({"ratio": ratio, "method": label, "seeds": len(found), **means})
    return pd.DataFrame(lines)


def _runs(study: StudyResults, members: list[TrialRecord]) -> list[pd.DataFrame]:
    """The rows of each seed by the official protocol, where answers were graded by how likely they are."""
    found = (study.rows(trial.key, "released") for trial in members)
    return [rows for rows in found if rows is not None and rows["truth_ratio"].notna().any()]


def _shown(raw: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame([
        {"forget %": line["ratio"], "method": naming.method(line["method"]),
         **{name: number(line[name]) for name in SHOWN if name in raw}}
        for _, line in raw.iterrows()
    ])  # fmt: skip


SECTION = Section("CLEAR", 81, parts)
