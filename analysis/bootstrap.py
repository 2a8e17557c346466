"""Confidence intervals over people: questions about one person are not independent, so people are resampled.

Cluster bootstrap, percentile intervals (Efron & Tibshirani 1993, ch. 13; Davison & Hinkley 1997, sec. 3.8). Every
person counts the same: questions and seeds are averaged within the person first. The intervals cover the choice of
people, not the choice of seeds, and are a little too narrow below about ten people.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

RESAMPLES = 2000
"""Enough for ends of 95 % intervals that are stable to two digits (Efron & Tibshirani 1993 advise 1000 or more)."""
LEVEL = 0.95
SEED = 20240229
"""Arbitrary and fixed: the same rows have the same intervals."""
DIGITS = 12
"""Decimals kept, so that a difference that is 0 but for rounding is 0 and does not pass for a tiny recovery."""

Values = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and its 95 % interval; the bounds are NaN where fewer than two people leave nothing to resample."""

    mean: float
    low: float
    high: float


MISSING = Interval(float("nan"), float("nan"), float("nan"))


def by_person(rows: pd.DataFrame, column: str = "score") -> pd.Series[float]:
    """The mean of `column` for each person, over all their rows (questions and seeds); rows without a value are out."""
    return rows.groupby("person")[column].mean().dropna()


def interval(people: pd.DataFrame, statistic: Callable[[Values], Values]) -> Interval:
    """A statistic of column means with its interval; one line of `people` is one person, resampled as a whole.

    `statistic` maps means of shape (n, columns) to values of shape (n,). Columns are resampled together, so
    differences between them are paired. Resamples whose statistic is not a number are left out.
    """
    values = people.to_numpy(dtype=float)
    if len(values) == 0:
        return MISSING
    estimate = round(float(statistic(values.mean(axis=0, keepdims=True))[0]), DIGITS)
    if len(values) < 2 or np.isnan(estimate):
        return Interval(estimate, float("nan"), float("nan"))
    samples = statistic(_weights(len(values)) @ values)
    tail = (1.0 - LEVEL) / 2
    low, high = np.nanquantile(samples, [tail, 1.0 - tail])
    return Interval(estimate, round(float(low), DIGITS), round(float(high), DIGITS))


def mean(people: pd.Series[float]) -> Interval:
    """The mean over people and its interval; one value of `people` is one person."""
    return interval(people.to_frame(), lambda means: means[:, 0])


@lru_cache(maxsize=64)
def _weights(people: int) -> Values:
    """The weight of each person in each resample, shape (RESAMPLES, people); the same on every call and machine."""
    counts = np.random.default_rng(SEED).multinomial(people, np.full(people, 1.0 / people), size=RESAMPLES)
    return np.asarray(counts / people, dtype=float)
