"""Studies of the same settings on several worlds as one answer: means, ranks, differences, and where variance is from.

A world is a benchmark with its people. One study says what holds in its world; whoever repeats it elsewhere draws a new
world, searches again and teaches again, so the worlds are the sample here, and each counts once however many studies
it has.

- The mean of a measure has a Student t interval over worlds, for measures with bounds on the scale of log odds: near a
  bound worlds spread to one side, and the plain interval then covers too rarely.
- Differences are paired over worlds: every method meets the same people. Their p-values are those of the paired t test,
  adjusted over all pairs of all ratios (Holm 1979), so that in 95 % of pools no two equal methods are told apart.
- Ranks are those of the means over worlds, drawn anew: the means plus the observed deviations of each world with
  random weights, scaled so that every difference between two methods follows the t distribution of its own paired test.
  Resampling whole worlds instead would know three or five worlds too well.

Fewer than `FEWEST_WORLDS` worlds give numbers alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit, stdtr

from study.metrics.intervals import DIGITS, LEVEL, Interval, Values, t_quantile
from study.metrics.verdicts import ERROR, holm

FEWEST_WORLDS = 3
"""With two worlds a 95 % interval is 13 standard errors wide on each side: it would say nothing."""
DRAWS = 20_000
"""For the chances of ranks: their error is then below 0.004."""

Said = Literal["agreed", "contradicted", "not confirmed", "tie told apart"]
SAID: tuple[Said, ...] = ("agreed", "contradicted", "not confirmed", "tie told apart")
"""What the pool says to a statement of one study."""


def by_world(values: pd.Series[float], worlds: pd.Series[str]) -> pd.Series[float]:
    """The mean of a measure in each world, over the studies of that world."""
    return values.groupby(worlds).mean()


def mean(values: Sequence[float] | Values, top: float = math.inf) -> Interval:
    """The mean over worlds of a measure in [0, `top`], with its interval; bounds are NaN with too few worlds."""
    found = np.asarray(values, dtype=float)
    middle = float(found.mean()) if len(found) else math.nan
    if len(found) < FEWEST_WORLDS:
        return Interval(middle, math.nan, math.nan)
    reach = t_quantile(len(found) - 1, (1.0 + LEVEL) / 2.0) * _error(found)
    if math.isinf(top) or reach == 0.0:
        return Interval(middle, round(middle - reach, DIGITS), round(middle + reach, DIGITS))
    share = middle / top
    center, reach = float(logit(share)), reach / top / (share * (1.0 - share))
    return Interval(middle, top * float(expit(center - reach)), top * float(expit(center + reach)))


class Difference(NamedTuple):
    """How much farther from the ideal point one method is than another on average over worlds, paired by world."""

    ratio: int
    near: str
    far: str
    farther: Interval
    """Its interval is that of this pair alone."""
    p: float
    """Adjusted over all pairs; NaN with too few worlds."""

    @property
    def survives(self) -> bool:
        """Whether the two are told apart."""
        return self.p < ERROR


def differences(distances: Mapping[int, pd.DataFrame]) -> list[Difference]:
    """Every pair of methods of each ratio, the nearer first, from distances by world (lines) and method (columns)."""
    pairs = [
        (ratio, one, other, table[other].to_numpy(dtype=float) - table[one].to_numpy(dtype=float))
        for ratio, table in distances.items()
        for one, other in combinations(_nearest_first(table), 2)
    ]
    chances = [_p(apart) for *_, apart in pairs]
    known = [not math.isnan(p) for p in chances]
    adjusted = iter(holm([p for p, told in zip(chances, known, strict=True) if told]))
    return [
        Difference(ratio, one, other, mean(apart), next(adjusted) if told else math.nan)
        for (ratio, one, other, apart), told in zip(pairs, known, strict=True)
    ]


def rank_chances(distances: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The probability of each rank (columns, from 1) for each method (lines); equal methods share their ranks.

    Empty with too few worlds.
    """
    worlds, methods = distances.shape
    if worlds < FEWEST_WORLDS:
        return pd.DataFrame(index=distances.columns)
    draw = np.random.default_rng(seed)
    found = distances.to_numpy(dtype=float)
    middle = found.mean(axis=0)
    weights = draw.normal(size=(DRAWS, worlds)) / math.sqrt(worlds * (worlds - 1))
    scale = np.sqrt((worlds - 1) / draw.chisquare(worlds - 1, size=(DRAWS, 1)))
    means = np.round(middle + scale * (weights @ (found - middle)), DIGITS)
    order = np.lexsort((draw.random(means.shape), means), axis=1)
    ranks = np.argsort(order, axis=1)
    shares = np.stack([(ranks == rank).mean(axis=0) for rank in range(methods)], axis=1)
    return pd.DataFrame(shares, index=distances.columns, columns=range(1, methods + 1))


class Parts(NamedTuple):
    """What the variance of a distance between studies is made of. NaN is not known."""

    people: float
    """The choice of people, as each study's own intervals have it."""
    seeds: float
    """The seeds of the model and of the references, of a mean over as many as each study has."""
    search: float
    """Another search of the same world, which teaches anew; NaN if no world was searched twice."""
    world: float
    """All else that differs between worlds, with that of the search where this is not known."""

    @property
    def total(self) -> float:
        """The sum of what is known; NaN where the worlds are too few to tell."""
        return math.nan if math.isnan(self.world) else float(np.nansum(self))


def parts(distance: Sequence[float], people: Sequence[float], seeds: Sequence[float], worlds: Sequence[str]) -> Parts:
    """The components for one method: nested analysis of variance, studies within worlds, of one number a study.

    `people` and `seeds` are the variances that each study itself reports for them. Differences come out negative by
    chance; they are then 0.
    """
    table = pd.DataFrame({"distance": distance, "world": worlds}).groupby("world")["distance"]
    own, noise = float(np.mean(people)), float(np.mean(seeds))
    if table.ngroups < FEWEST_WORLDS:
        return Parts(own, noise, math.nan, math.nan)
    between = float(table.mean().var(ddof=1))
    again = int((table.size() - 1).sum())
    if not again:
        return Parts(own, noise, math.nan, float(np.maximum(0.0, between - own - noise)))
    within = float(((table.size() - 1) * table.var(ddof=1).fillna(0.0)).sum()) / again
    rest = between - own - within * float((1.0 / table.size()).mean())
    return Parts(own, noise, float(np.maximum(0.0, within - noise)), float(np.maximum(0.0, rest)))


class Statement(NamedTuple):
    """What one study says of two methods: that `near` is closer to the ideal point, or that they are tied."""

    ratio: int
    near: str
    other: str
    tied: bool


def said(statement: Statement, found: Sequence[Difference]) -> Said | None:
    """What differences over other worlds say to a statement; None if they do not hold the pair or cannot tell.

    A tie claims no equality, so one that more worlds tell apart is not contradicted.
    """
    pair = {statement.near, statement.other}
    for one in found:
        if one.ratio == statement.ratio and {one.near, one.far} == pair and not math.isnan(one.p):
            if statement.tied:
                return "tie told apart" if one.survives else "agreed"
            if not one.survives:
                return "not confirmed"
            return "agreed" if one.near == statement.near else "contradicted"
    return None


def _nearest_first(distances: pd.DataFrame) -> list[str]:
    means = {str(name): float(column.mean()) for name, column in distances.items()}
    return sorted(means, key=lambda name: (means[name], name))


def _p(apart: Values) -> float:
    """The two-sided p-value of the paired t test; NaN with too few worlds."""
    if len(apart) < FEWEST_WORLDS:
        return math.nan
    middle, error = abs(round(float(apart.mean()), DIGITS)), _error(apart)
    if error == 0.0:
        return 0.0 if middle else 1.0
    return float(2.0 * stdtr(len(apart) - 1, -middle / error))


def _error(values: Values) -> float:
    """The standard error of a mean."""
    return round(float(values.std(ddof=1)), DIGITS) / math.sqrt(len(values))
