"""Successive halving over several objectives: which trials go on at a rung.

As in ASHA (Li et al. 2020, arXiv 1810.05934), but by the rank of non-domination in place of one loss: rank 0 is the
Pareto front, rank 1 the front of the rest, and so on (Deb et al. 2002). Within a rank the nearer to the ideal is ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from study.metrics.objectives import costs, distance_to_ideal, dominates

KEPT = (1 / 2, 1 / 4)
"""Of the trials at the first and at the second rung that go on: what is seen at the second tells more of the end."""
KEPT_OF_MANY = 1 / 3
"""At most, of many: in a long search two fifths of the training are saved, and little over a hundredth of the
hypervolume is lost (docs/search.md)."""
MANY = 16
"""Trials at a rung that are many. A third of them is five: among fewer that go on the noise of a seed decides."""
FEWEST = 3
"""Earlier trials at a rung without which nothing is stopped: the worse half of two is chance."""


def survives(own: Mapping[str, float], peers: Sequence[Mapping[str, float]], rung: int) -> bool:
    """Whether a trial is in the better share of itself and its peers at a rung, from 1; of few peers, always."""
    if len(peers) < FEWEST:
        return True
    everyone = [*peers, own]
    order = ranks(np.array([costs(values) for values in everyone]))
    ahead = sorted(zip(order, [distance_to_ideal(**values) for values in everyone], strict=True))
    return (order[-1], distance_to_ideal(**own)) <= ahead[kept(len(everyone), rung) - 1]


def kept(among: int, rung: int) -> int:
    """How many of the trials at a rung go on, if none tie."""
    share = KEPT[rung - 1] if among < MANY else min(KEPT[rung - 1], KEPT_OF_MANY)
    return max(1, round(share * among))


def ranks(points: NDArray[np.float64]) -> list[int]:
    """The non-domination rank of each point (n, k), all costs minimized: 0 for the Pareto front.

    What is NaN comes last: it is on no front.
    """
    ahead = dominates(points)
    lost = np.isnan(points).any(axis=1)
    above = ahead.sum(axis=0)  # by how many of those without a rank each is dominated
    found, rank, left = np.full(len(points), -1), 0, ~lost
    while left.any():
        on_front = left & (above == 0)
        found[on_front] = rank
        above -= ahead[on_front].sum(axis=0)
        left &= ~on_front
        rank += 1
    found[lost] = rank
    return [int(one) for one in found]
