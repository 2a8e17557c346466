"""Which trials go on at a rung."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.metrics.halving import FEWEST, MANY, kept, ranks, survives
from study.metrics.objectives import distance_to_ideal

unit = st.floats(0.0, 1.0)
points = st.lists(st.tuples(unit, unit), min_size=1, max_size=20)


def objectives(point: tuple[float, float]) -> dict[str, float]:
    return {"forget_gap": point[0], "utility": 1.0 - point[1]}


@given(points)
def test_ranks_are_those_of_peeling_fronts(found: list[tuple[float, float]]) -> None:
    """A point's rank is one more than the largest of those that dominate it: by brute force."""
    order = ranks(np.array(found))
    for own, rank in zip(found, order, strict=True):
        ahead = [
            other
            for point, other in zip(found, order, strict=True)
            if point != own and point[0] <= own[0] and point[1] <= own[1]
        ]
        assert rank == max(ahead, default=-1) + 1


def test_nan_comes_last() -> None:
    assert ranks(np.array([[0.5, 0.5], [np.nan, 0.0], [0.9, 0.9]])) == [0, 2, 1]


@given(points.filter(lambda found: len(found) > FEWEST), st.sampled_from([1, 2]))
def test_the_better_share_at_a_rung_goes_on(found: list[tuple[float, float]], rung: int) -> None:
    """Of distinct points each beside all others: as many and whoever ties with the last; no loser dominates one."""
    every = list(dict.fromkeys((round(a, 3), round(b, 3)) for a, b in found))
    if len(every) <= FEWEST:
        return
    on = [p for p in every if survives(objectives(p), [objectives(q) for q in every if q != p], rung)]
    out = [p for p in every if p not in on]
    ahead = [*zip(ranks(np.array(every)), (distance_to_ideal(**objectives(p)) for p in every), strict=True)]
    last = max(place for p, place in zip(every, ahead, strict=True) if p in on)
    assert sum(place < last for place in ahead) < kept(len(every), rung) <= len(on)
    assert len(on) == sum(place <= last for place in ahead)
    assert not any(a[0] <= b[0] and a[1] <= b[1] for a in out for b in on)


@pytest.mark.parametrize(
    ("among", "rung", "places"), [(8, 1, 4), (8, 2, 2), (MANY - 1, 1, 8), (MANY, 1, 5), (18, 1, 6), (18, 2, 4)]
)
def test_of_few_in_a_row_half_goes_on_of_many_a_third_and_then_a_quarter(among: int, rung: int, places: int) -> None:
    every = [objectives((place / 20, place / 20)) for place in range(among)]
    assert [survives(one, [other for other in every if other != one], rung) for one in every] == [
        place < places for place in range(among)
    ]


@pytest.mark.parametrize("peers", range(FEWEST))
def test_of_few_nobody_is_stopped(peers: int) -> None:
    best: Any = objectives((0.0, 0.0))
    assert survives(objectives((1.0, 1.0)), [best] * peers, 1)


def test_the_nearer_to_the_ideal_is_ahead_on_a_front() -> None:
    """One that has not begun to forget is on the front too, by its utility alone."""
    peers = [objectives(p) for p in ((0.1, 0.1), (0.05, 0.2), (0.2, 0.05))]
    assert survives(objectives((0.12, 0.09)), peers, 1)
    assert not survives(objectives((0.9, 0.0)), peers, 1)
