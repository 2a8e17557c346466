"""Confidence intervals over people and seeds: both are drawn at random, and whoever repeats a study draws them anew.

Questions about one person are not independent, nor are the runs of one seed, so people and seeds are crossed random
effects. What each contributes to the variance of a statistic comes of leaving out one person, one seed, and one of
both at a time (the jackknife; Efron & Tibshirani 1993, ch. 11). For a mean that is the analysis of variance of the
two-way layout; a ratio or a distance between distributions is treated by its linear approximation. Each component is
multiplied by the Student t quantile of its own degrees of freedom (as in the approximate intervals of Graybill & Wang
1980): three seeds say little about the noise of seeds, and a pooled number of degrees of freedom forgets it.

Fewer than `FEWEST_PEOPLE` people leave no interval. The noise of a single seed cannot be seen: an interval then covers
the choice of people alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
FEWEST_PEOPLE = 6
"""Below this, the spread of people is known too badly for an interval that a decision may rest on."""
DIGITS = 12
"""Decimals kept, so that a difference that is 0 but for rounding is 0 and does not pass for a tiny recovery."""

Values = NDArray[np.float64]
Statistic = Callable[[Sequence[Values]], float]


@dataclass(frozen=True)
class Block:
    """Scores of one model. `axes` names each axis of `values`; axes of one name hold the same units in every block.

    People have an axis for each set that was drawn by itself, such as `forget` and `retain`; seeds have one for each
    model, such as `seed of npo`. What is not drawn, such as before and after, is an axis named "".
    """

    values: Values
    axes: tuple[str, ...]

    def without(self, units: Mapping[str, int]) -> Values:
        """The values without one unit of each axis in `units`."""
        left = self.values
        for at, axis in enumerate(self.axes):
            if axis in units:
                left = left.take(_others(left.shape[at], units[axis]), axis=at)
        return left


class Interval(NamedTuple):
    """An estimate and its bounds; the bounds are NaN where nothing can be said of the spread."""

    mean: float
    low: float
    high: float


MISSING = Interval(math.nan, math.nan, math.nan)


class Component(NamedTuple):
    """What the people or the seeds of one axis add to the variance of a statistic."""

    axis: str
    variance: float
    units: int
    freedom: int
    """Of the variance: `units` - 1, or more where several models tell of it."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with the components of its variance: none where there are too few people to tell.

    Of a `share`, a mean of scores in [0, 1], the interval is made on the scale of log odds, so it stays within these
    bounds and is not symmetric near them.
    """

    value: float
    people: tuple[Component, ...] = ()
    seeds: tuple[Component, ...] = ()
    share: bool = False

    @property
    def known(self) -> bool:
        """Whether anything can be said of the spread."""
        return bool(self.people) and not math.isnan(self.value)

    def interval(self, level: float = LEVEL) -> Interval:
        """The two-sided interval at a level."""
        if not self.known:
            return Interval(self.value, math.nan, math.nan)
        low, high = self._bounds((1.0 - level) / 2.0)
        return Interval(self.value, round(low, DIGITS), round(high, DIGITS))

    def p_above(self, bound: float) -> float:
        """The p-value, at most 1/2, of the hypothesis that the truth is `bound` or less; else 1. NaN without spread."""
        if not self.known:
            return math.nan
        if self.value <= bound:
            return 1.0
        low, high = -30.0, math.log(0.5)  # of the logarithm of the p-value: the lower bound rises with it
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self._bounds(math.exp(middle))[0] > bound else (middle, high)
        return math.exp(high)

    def _bounds(self, tail: float) -> tuple[float, float]:
        """The bounds that leave `tail` outside on each side."""
        if self.share and self.value in (0.0, 1.0):  # as if each person were one draw: the rule of three
            far = 1.0 - tail ** (1.0 / min(part.units for part in self.people))
            return (0.0, far) if self.value == 0.0 else (1.0 - far, 1.0)
        reach = math.sqrt(math.fsum(t_quantile(c.freedom, tail) ** 2 * c.variance for c in (*self.people, *self.seeds)))
        if not self.share:
            return self.value - reach, self.value + reach
        middle, reach = math.log(self.value / (1.0 - self.value)), reach / (self.value * (1.0 - self.value))
        return _share(middle - reach), _share(middle + reach)


def estimate(
    statistic: Statistic,
    blocks: Sequence[Block],
    people: Sequence[str],
    seeds: Sequence[str] = (),
    *,
    share: bool = False,
) -> Estimate:
    """A statistic of the blocks' values and what people and seeds, named by their axes, add to its variance.

    `statistic` takes the values in the order of `blocks`; how many units an axis has must not matter to it.
    """
    value = round(float(statistic([block.values for block in blocks])), DIGITS)
    sizes = {axis: block.values.shape[at] for block in blocks for at, axis in enumerate(block.axes) if axis}
    if math.isnan(value) or min(sizes[axis] for axis in people) < FEWEST_PEOPLE:
        return Estimate(value, share=share)
    several = [axis for axis in seeds if sizes[axis] > 1]
    single = {axis: _left_out(statistic, blocks, (axis,), sizes) for axis in (*people, *several)}
    both: dict[str, float] = dict.fromkeys(people, 0.0)  # interaction and residual, which is in each of the two
    for axis, seed in product(people, several):
        if any(axis in block.axes and seed in block.axes for block in blocks):
            pairs = _left_out(statistic, blocks, (axis, seed), sizes)
            rest = pairs - single[axis][:, None] - single[seed][None, :] + value
            cells = (sizes[axis] - 1) * (sizes[seed] - 1)
            both[axis] += cells * float((rest**2).mean())
    drawn = {axis: Component(axis, _jackknife(single[axis]), sizes[axis], sizes[axis] - 1) for axis in single}
    if not all(math.isfinite(part.variance) for part in drawn.values()):  # without somebody there is no statistic
        return Estimate(value, share=share)
    alone = [drawn[axis]._replace(variance=max(0.0, drawn[axis].variance - both[axis])) for axis in people]
    return Estimate(value, tuple(alone), tuple(drawn[axis] for axis in several), share)


def pooled(found: Sequence[Estimate], apart: Collection[str] = ()) -> list[Estimate]:
    """The estimates of one table, with what they tell together of the noise of seeds.

    Two or three seeds of one model say next to nothing about it, those of all models of a study do. Each component of
    seeds is the larger of its own and the mean over models, for as many seeds, with the degrees of freedom of all: a
    model that is noisier than the others keeps its own noise. Estimates of one model under several attacks count once.
    Axes in `apart` stay as they are: they add in another way, as the references do to a difference that they share.
    """
    parts: dict[str, list[Component]] = {}
    for part in (part for one in found for part in one.seeds if part.axis not in apart):
        parts.setdefault(part.axis, []).append(part)
    models = [(max(p.freedom for p in mine), math.fsum(p.variance * p.units for p in mine) / len(mine))
              for mine in parts.values()]  # fmt: skip
    freedom = sum(df for df, _ in models)
    total = math.fsum(df * one for df, one in models)  # of a single seed, times the degrees of freedom

    def together(part: Component) -> Component:
        if part.axis in apart:
            return part
        return part._replace(variance=max(part.variance, total / freedom / part.units), freedom=freedom)

    return [replace(one, seeds=tuple(map(together, one.seeds))) for one in found]


def t_quantile(freedom: float, below: float) -> float:
    """The quantile of Student's t."""
    from scipy.special import stdtrit  # a plan reaches this module and does without scipy, which takes half a second

    return float(stdtrit(freedom, below))


def _share(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds)) if log_odds > -700 else 0.0  # beyond that exp is no number any more


def mean(values: Values, people: str = "people", seed: str = "seed") -> Estimate:
    """The mean of scores in [0, 1] of shape (people, seeds)."""
    return estimate(
        lambda blocks: float(blocks[0].mean()), [Block(values, (people, seed))], [people], [seed], share=True
    )


def _left_out(statistic: Statistic, blocks: Sequence[Block], axes: tuple[str, ...], sizes: Mapping[str, int]) -> Values:
    """The statistic without each unit of an axis, or without each pair of units of two."""
    shape = tuple(sizes[axis] for axis in axes)
    units = [dict(zip(axes, at, strict=True)) for at in np.ndindex(shape)]
    found = [statistic([block.without(gone) for block in blocks]) for gone in units]
    return np.array(found, dtype=float).reshape(shape)


@lru_cache(maxsize=4096)
def _others(units: int, one: int) -> NDArray[np.intp]:
    """The places of all units but one; `np.delete` finds them anew each time, which takes longer than the rest."""
    found = np.delete(np.arange(units), one)
    found.flags.writeable = False
    return found


def _jackknife(without: Values) -> float:
    """The variance of a statistic, from its values without each unit."""
    return float((len(without) - 1) * without.var())
