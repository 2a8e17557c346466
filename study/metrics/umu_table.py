"""The numbers of both modalities in UMU-Bench, from rows of its official protocol (its eval.py, revision 93b9900)."""

from __future__ import annotations

import pandas as pd

from study.metrics.formulas import average, contraharmonic, harmonic
from study.metrics.registry import all_right, all_wrong, paired

SETS = ("forget", "retain", "real")
MARKED = {"classification": "Choices", "cloze": "Clozes"}


def umu_scores(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Of every set the shares of pairs with both sides right and both wrong, and `ROUGE-L`, the mean over pairs.

    Of a pair that is (a^2 + b^2) / (a + b) of the two sides where people must go and 2 a b / (a + b) elsewhere. The
    metrics `rlf` and `rlr` take a and b for the means over all questions instead. NaN where nothing was asked.
    """
    return {name: _of_set(rows[rows["role"] == name], name) for name in SETS}


def _of_set(rows: pd.DataFrame, name: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for task, heading in MARKED.items():
        marked = rows[rows["task"] == task]
        found |= {f"{heading} both right": all_right(marked), f"{heading} both wrong": all_wrong(marked)}
    told = paired(rows[rows["task"] == "generation"])[["score_x", "score_y"]].to_numpy(dtype=float)
    both = [contraharmonic(a, b) if name == "forget" else harmonic([a, b]) for a, b in told.tolist()]
    return {**found, "ROUGE-L": average(both)}
