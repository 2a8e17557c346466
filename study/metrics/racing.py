"""Racing: which contenders are still in the race after so many seeds.

The best of many trials that were run once is often the luckiest. So the few best are run with further seeds, the same
for all, before one is named; those that are by then significantly behind are not run again (F-race, Birattari et al.
2002, with the t-test of irace).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from study.metrics.intervals import t_quantile

LEVEL = 0.95
"""Of the one-sided test that a contender is behind: one in twenty that are not is dropped in a round."""


Contender = TypeVar("Contender")


def still_racing(distances: Mapping[Contender, Sequence[float]]) -> list[Contender]:
    """The contenders, in their order, that were run with every seed so far and are not behind after the last one."""
    rounds = max(map(len, distances.values()))
    left = [one for one, found in distances.items() if len(found) == rounds]
    lost = behind([distances[one] for one in left])
    return [one for one, is_behind in zip(left, lost, strict=True) if not is_behind]


def behind(distances: ArrayLike) -> NDArray[np.bool_]:
    """Which contenders are significantly behind the best, from distances to the ideal, (contenders, seeds).

    A contender and a seed each add to a distance, what is left is noise, whose variance is estimated over all of them.
    Nobody is behind after one seed, or alone. A contender that is not finite for a seed is behind.
    """
    found = np.asarray(distances, dtype=float)
    lost = ~np.isfinite(found).all(axis=1)
    left, seeds = found[~lost], found.shape[1]
    if len(left) < 2 or seeds < 2:
        return np.asarray(lost)
    means = left.mean(axis=1)
    rest = left - means[:, None] - left.mean(axis=0) + left.mean()
    freedom = (len(left) - 1) * (seeds - 1)
    error = np.sqrt(2.0 * (rest**2).sum() / freedom / seeds)
    out = lost.copy()
    out[~lost] = means - means.min() > t_quantile(freedom, LEVEL) * error
    return np.asarray(out)
