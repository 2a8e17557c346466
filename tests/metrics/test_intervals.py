"""Intervals over people and seeds: what they are made of, and that they cover what they say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import t as students_t
from scipy.stats import ttest_1samp

from study.metrics.intervals import FEWEST_PEOPLE, Block, Component, Estimate, Values, estimate, mean, pooled
from tests.metrics.simulation import KINDS, NOISES, PEOPLE, STATISTICS, Cell, coverage

DRAW = np.random.default_rng(0)


def average(values: Sequence[Values]) -> float:
    """The mean of the first block."""
    return float(values[0].mean())


def test_of_one_seed_it_is_the_t_interval() -> None:
    scores = DRAW.normal(0, 1, 12)
    found = estimate(average, [Block(scores, ("people",))], ["people"])
    assert found.interval()[1:] == pytest.approx(tuple(ttest_1samp(scores, 0).confidence_interval()), abs=1e-9)
    shown = ttest_1samp(scores, found.value - 0.5, alternative="greater").pvalue
    assert found.p_above(found.value - 0.5) == pytest.approx(shown, abs=1e-9)
    assert found.p_above(found.value + 0.1) == 1.0


def test_of_people_and_seeds_it_is_the_two_way_analysis_of_variance() -> None:
    n, s = 9, 4
    x = DRAW.normal(0, 1, (n, 1)) + DRAW.normal(0, 1, (1, s)) + DRAW.normal(0, 1, (n, s))
    rest = x - x.mean(1, keepdims=True) - x.mean(0, keepdims=True) + x.mean()
    left = (rest**2).sum() / ((n - 1) * (s - 1)) / (n * s)
    found = estimate(average, [Block(x, ("people", "seed"))], ["people"], ["seed"])
    (people,), (seeds,) = found.people, found.seeds
    assert people.variance == pytest.approx(max(0, x.mean(1).var(ddof=1) / n - left))
    assert seeds.variance == pytest.approx(x.mean(0).var(ddof=1) / s)
    assert (people.freedom, seeds.freedom) == (n - 1, s - 1)


def test_blocks_of_one_axis_lose_the_same_person() -> None:
    own = DRAW.uniform(0, 1, (12, 1))
    same = [Block(own, ("people", "seed")), Block(own - 0.25, ("people", "reference"))]
    found = estimate(lambda v: float(v[0].mean() - v[1].mean()), same, ["people"], ["seed", "reference"])
    assert found.interval() == pytest.approx((0.25, 0.25, 0.25))
    assert found.p_above(0) < 1e-9


def test_below_six_people_there_is_no_interval() -> None:
    found = mean(DRAW.uniform(0, 1, (FEWEST_PEOPLE - 1, 3)))
    assert not math.isnan(found.value)
    assert all(map(math.isnan, (*found.interval()[1:], found.p_above(0))))
    assert not math.isnan(mean(DRAW.uniform(0, 1, (FEWEST_PEOPLE, 3))).interval().low)


@pytest.mark.parametrize(("value", "bounds"), [(0.0, (0.0, 1 - 0.025 ** (1 / 12))), (1.0, (0.025 ** (1 / 12), 1.0))])
def test_a_share_of_nothing_may_still_be_something(value: float, bounds: tuple[float, float]) -> None:
    assert mean(np.full((12, 3), value)).interval()[1:] == pytest.approx(bounds)


def test_the_interval_of_a_share_stays_within_bounds() -> None:
    found = mean(np.array([[0.0], [0.0], [0.0], [0.0], [0.0], [0.9]])).interval()
    assert 0 < found.low < found.mean < found.high < 1


def test_a_p_value_is_where_the_bound_of_the_interval_meets() -> None:
    found = Estimate(0.2, estimate(average, [Block(DRAW.normal(0, 1, 9), ("people",))], ["people"]).people)
    tail = found.p_above(0.0)
    assert found.interval(1 - 2 * tail).low == pytest.approx(0.0, abs=1e-9)
    reach = float(students_t.ppf(1 - tail, 8)) * math.sqrt(found.people[0].variance)
    assert reach == pytest.approx(0.2)


def test_models_tell_together_of_the_noise_of_seeds() -> None:
    quiet = [Component("seed a", 1.0, 3, 2), Component("seed b", 3.0, 3, 2), Component("seed c", 11.0, 3, 2)]
    alone = [Estimate(0.5, (Component("people", 1.0, 9, 8),), (part,)) for part in (*quiet, quiet[0])]
    together = [one.seeds[0] for one in pooled(alone)]
    assert [part.variance for part in together] == [5.0, 5.0, 11.0, 5.0]
    assert {part.freedom for part in together} == {6}  # three models; the first was met twice
    assert pooled([Estimate(0.5)]) == [Estimate(0.5)]


def test_a_statistic_that_somebody_carries_alone_has_no_interval() -> None:
    """Without one of the people it is not defined, which is no spread of 0."""
    scores = DRAW.uniform(0, 1, (9, 2))

    def carried(values: Sequence[Values]) -> float:
        return float(values[0].mean()) if len(values[0]) == 9 else math.nan

    assert not estimate(carried, [Block(scores, ("people", "seed"))], ["people"], ["seed"]).known


def test_noise_is_told_for_as_many_seeds_as_there_are_and_not_of_axes_apart() -> None:
    people = (Component("people", 1.0, 9, 8),)
    few, many = Component("seed a", 4.0, 2, 1), Component("seed b", 1.0, 8, 7)
    shared = Component("reference", 1e-6, 3, 2)
    found = pooled([Estimate(0.5, people, (few, shared)), Estimate(0.5, people, (many, shared))], apart=["reference"])
    assert [one.seeds[0].variance for one in found] == [4.0, 1.0]  # of a single seed both are 8
    assert [one.seeds[1] for one in found] == [shared, shared]
    assert {one.seeds[0].freedom for one in found} == {8}


MANY = PEOPLE[-1]
"""The easiest case and the dearest: intervals of many people lean on the fewest assumptions."""
COUNTS = [people if people < MANY else pytest.param(people, marks=pytest.mark.combinations) for people in PEOPLE]


@pytest.mark.slow
@pytest.mark.parametrize("people", COUNTS)
def test_ninety_five_percent_cover(people: int) -> None:
    """Nominal 95 % cover at least 93 % of simulated studies, whatever the noise of seeds and the kind of score.

    Of 150 studies a cell, 95 % are 142.5; a cell below 0.90 has a probability of 0.006 if it covers 95 %.
    """
    cells = [Cell(kind, noise, people) for kind in KINDS for noise in NOISES]
    shares = np.array([coverage(cell, 150, seed=people) for cell in cells])
    assert dict(zip(STATISTICS, shares.mean(axis=0) >= 0.93, strict=True)) == dict.fromkeys(STATISTICS, True)
    assert shares.min() >= 0.90, dict(zip(cells, shares.tolist(), strict=True))
