"""Rows of scored questions as scores of people and seeds, and their intervals (`study.metrics.intervals`).

Every person counts the same: questions are averaged within the person first, for each seed by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from study.metrics import intervals
from study.metrics.intervals import MISSING, Block, Estimate, Interval, Values, estimate


def by_person(rows: pd.DataFrame, column: str = "score") -> pd.Series[float]:
    """The mean of `column` for each person, over all their rows (questions and seeds); rows without a value are out."""
    return rows.groupby("person")[column].mean().dropna()


def table(rows: pd.DataFrame, column: str = "score") -> pd.DataFrame:
    """The mean of `column` for each person (lines) and seed (columns); people without a value for every seed are out.

    Rows without a column `seed` are of one.
    """
    seeds = rows["seed"] if "seed" in rows else pd.Series(0, index=rows.index)
    return rows.groupby(["person", seeds])[column].mean().unstack().dropna()


def mean(rows: pd.DataFrame, column: str = "score") -> Estimate:
    """The mean over people of scores in [0, 1], with what people and seeds add to its variance."""
    return intervals.mean(table(rows, column).to_numpy(dtype=float)) if len(rows) else Estimate(float("nan"))


def of_means(means: pd.Series[float]) -> Estimate:
    """The same of means of each person and seed, which the index names."""
    return intervals.mean(means.unstack("seed").dropna().to_numpy(dtype=float))


def interval(people: pd.DataFrame, statistic: Callable[[Values], Values], *, share: bool = False) -> Interval:
    """A function of column means with its interval over people; one line of `people` is one person.

    `statistic` maps means of shape (n, columns) to values of shape (n,); of a `share` they lie in [0, 1].
    """
    if people.empty:
        return MISSING
    block = Block(people.to_numpy(dtype=float), ("people", ""))

    def of_means(values: list[Values]) -> float:
        return float(statistic(values[0].mean(axis=0, keepdims=True))[0])

    return estimate(of_means, [block], ["people"], share=share).interval()  # type: ignore[arg-type]
