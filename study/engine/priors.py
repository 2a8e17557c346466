"""Earlier trials as prior observations: how far they predict a search, and which of them its sampler is told.

A search of another model, on other data, may have much to tell, or nothing. So it is asked what it would have said of
the trials that are known by now: each is foretold what the nearest earlier trial had. Of the pairs of trials that it
puts in the right order, the share above that in the wrong order (Kendall's tau) is the share of the earlier trials that
the sampler is told; if it is not positive, none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from study.core.sampling import spaced

FIRST = 6
"""Trials after which earlier ones are weighed for the first time, and again whenever these have doubled: what is known
of so few already orders ten pairs, and a search of any length weighs them a few times."""
FEWEST = 3
"""Known trials without which nothing is believed: a single pair is in the right order half of the time."""


def weighed_after(trials: int) -> int:
    """The number of trials after which earlier ones were last weighed; 0 if they have not been."""
    count = FIRST
    while 2 * count <= trials:
        count *= 2
    return count if count <= trials else 0


def kept(earlier: Sequence[FrozenTrial], known: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The earlier trials that are told, given the complete ones that are known: evenly spaced, by their order."""
    count = round(max(0.0, agreement(earlier, known)) * len(earlier))
    return spaced(earlier, count)


def agreement(earlier: Sequence[FrozenTrial], known: Sequence[FrozenTrial]) -> float:
    """How well earlier trials foretell the order of known ones, from -1 to 1: the least over the objectives."""
    if not earlier or len(known) < FEWEST:
        return 0.0
    nearest = [min(earlier, key=lambda one: _apart(one, mine)) for mine in known]
    foretold, found = (np.array([trial.values for trial in trials]) for trials in (nearest, known))
    return min(_tau(a, b) for a, b in zip(foretold.T, found.T, strict=True))


def _tau(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Kendall's tau: pairs in the same order less those in the other one, as a share of all; a tie is neither."""
    above = np.triu_indices(len(a), 1)
    signs = [np.sign(np.subtract.outer(values, values))[above] for values in (a, b)]
    return float(np.mean(signs[0] * signs[1]))


def _apart(one: FrozenTrial, other: FrozenTrial) -> float:
    """The squared distance of two trials: ranges are of length 1, as are two choices, and what only one was asked."""
    names = one.params.keys() | other.params.keys()
    return sum(_gap(one, other, name) ** 2 for name in names)


def _gap(one: FrozenTrial, other: FrozenTrial, name: str) -> float:
    if name not in one.params or name not in other.params:
        return 1.0
    distribution, values = one.distributions[name], (one.params[name], other.params[name])
    if isinstance(distribution, CategoricalDistribution):
        return float(values[0] != values[1])
    return abs(place(distribution, values[0]) - place(distribution, values[1]))


def place(distribution: BaseDistribution, value: float) -> float:
    """Where a number lies in its range, from 0 at the lower end to 1 at the upper."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, at = (np.log(v) if distribution.log else float(v) for v in (distribution.low, distribution.high, value))
    return float((at - low) / (high - low)) if high > low else 0.5
