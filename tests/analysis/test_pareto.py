"""Fronts against brute force and hypervolumes against areas known by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.pareto import costs, hypervolume, on_front, running_hypervolume
from study.metrics.objectives import front_mask

coarse = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=14)  # coarse values make many ties


def dominates(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """No worse anywhere and better somewhere."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def table(points: list[tuple[float, float]], method: str = "m", ratio: int = 10) -> pd.DataFrame:
    """Proposals of one method with (forget_gap, utility)."""
    lines = [
        {"method": method, "ratio": ratio, "number": number, "forget_gap": f, "utility": u}
        for number, (f, u) in enumerate(points)
    ]
    return pd.DataFrame(lines, columns=["method", "ratio", "number", "forget_gap", "utility"])


@pytest.mark.parametrize("columns", [2, 3])
@given(st.data())
def test_front_is_that_of_brute_force(columns: int, data: st.DataObject) -> None:
    """Ties stay together, and nothing else is on the front."""
    points = data.draw(st.lists(st.tuples(*[st.integers(0, 4)] * columns), max_size=14))
    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert front_mask(np.asarray(points, dtype=float).reshape(-1, columns)).tolist() == expected


@settings(deadline=None)
@given(coarse, st.randoms())
def test_order_does_not_matter(points: list[tuple[int, int]], random: st.DataObject) -> None:
    """The front of a shuffled list is the shuffled front."""
    order = sorted(range(len(points)), key=lambda _: random.random())  # type: ignore[attr-defined]
    values = np.asarray(points, dtype=float).reshape(-1, 2)
    assert front_mask(values[order]).tolist() == front_mask(values)[order].tolist()


def test_nan_is_never_on_the_front() -> None:
    """A trial without objectives neither is on the front nor keeps others from it."""
    assert front_mask([[np.nan, 0.0], [0.5, 0.5]]).tolist() == [False, True]


def test_fronts_are_per_method_and_ratio() -> None:
    """A point that another method dominates is still on the front of its own."""
    both = pd.concat([table([(0.1, 0.9), (0.2, 0.8)]), table([(0.5, 0.5)], "n"), table([(0.6, 0.4)], "n", 15)])
    assert on_front(both.reset_index(drop=True)).tolist() == [True, False, True, True]


def test_hypervolume_of_rectangles() -> None:
    """One point is one rectangle; two are an L; none, NaN and the worst point are nothing."""
    assert hypervolume(costs(table([(0.2, 0.5)]))) == pytest.approx(0.8 * 0.5)
    assert hypervolume(costs(table([(0.2, 0.5), (0.6, 1.0)]))) == pytest.approx(0.8 * 0.5 + 0.4 * 0.5)
    assert hypervolume(costs(table([(0.0, 1.0)]))) == pytest.approx(1.0)
    assert hypervolume(costs(table([(1.0, 0.0)]))) == 0.0
    assert hypervolume(costs(table([(float("nan"), 0.9)]))) == 0.0
    assert hypervolume(np.empty((0, 2))) == 0.0


def worked(points: list[tuple[float, float]]) -> pd.DataFrame:
    """Trials of which each computed one PFLOP more than the one before."""
    return table(points).assign(work=[1e15 * (number + 1) for number in range(len(points))])


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=10))
def test_running_hypervolume_never_falls(points: list[tuple[float, float]]) -> None:
    """It lies in [0, 1], ends at the volume of all points and never loses any."""
    running = running_hypervolume(worked(points))
    volumes = running["hypervolume"]
    assert running["trials"].tolist() == list(range(1, len(points) + 1))
    assert volumes.is_monotonic_increasing or np.diff(volumes).min() > -1e-12
    assert volumes.between(0.0, 1.0 + 1e-12).all()
    assert volumes.iloc[-1] == pytest.approx(hypervolume(costs(table(points))))


def test_failures_cost_a_proposal() -> None:
    """A proposal without objectives is counted and changes nothing; no proposals, no lines."""
    running = running_hypervolume(worked([(0.5, 0.5), (float("nan"), float("nan")), (0.5, 1.0)]))
    assert running["hypervolume"].tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert running["pflop"].tolist() == pytest.approx([1.0, 3.0, 6.0])
    assert running_hypervolume(worked([])).empty
