"""Several worlds as one answer: intervals that cover, equal methods that stay equal, ranks, and parts of a variance."""

from __future__ import annotations

import math
from itertools import product
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import ttest_1samp, ttest_rel

from study.metrics.intervals import Values
from study.metrics.worlds import (
    SAID,
    Difference,
    Parts,
    Said,
    Statement,
    by_world,
    differences,
    mean,
    parts,
    rank_chances,
    said,
)

WORLDS = (3, 5, 8)
SPREADS = (0.3, 0.5, 0.8)
"""Of worlds, in log odds: about a mean of 0.1, worlds are then mostly in 0.06 to 0.17, 0.04 to 0.23, 0.02 to 0.36."""
LEVEL = -2.2
POOLS = 2000
METHODS = 6


def frame(values: Values) -> pd.DataFrame:
    """Distances by world and method, the methods called by letters."""
    return pd.DataFrame(values, columns=list("abcdef")[: values.shape[1]])


@pytest.mark.parametrize(("worlds", "spread"), list(product(WORLDS, SPREADS)))
def test_nominal_95_percent_intervals_cover_at_least_93(worlds: int, spread: float) -> None:
    truth = float(expit(LEVEL + spread * np.random.default_rng(1).normal(size=1_000_000)).mean())
    draw = np.random.default_rng(worlds)
    pools = [mean(expit(LEVEL + spread * draw.normal(size=worlds)), top=1.0) for _ in range(POOLS)]
    assert np.mean([low <= truth <= high for _, low, high in pools]) >= 0.93


@pytest.mark.parametrize("worlds", WORLDS)
def test_intervals_of_differences_cover(worlds: int) -> None:
    draw = np.random.default_rng(worlds)
    pools = [mean(0.05 + 0.05 * draw.normal(size=worlds)) for _ in range(POOLS)]
    assert np.mean([low <= 0.05 <= high for _, low, high in pools]) >= 0.93


def drawn(draw: np.random.Generator, worlds: int, levels: Values) -> pd.DataFrame:
    """Methods at their levels (log odds) in worlds that are hard or easy for all, and each luckier in some; the last
    methods are three times as noisy as the first."""
    noise = np.linspace(0.2, 0.6, len(levels))
    odds = levels + draw.normal(0, 0.5, (worlds, 1)) + noise * draw.normal(size=(worlds, len(levels)))
    return frame(expit(odds))


def equal(draw: np.random.Generator, worlds: int) -> pd.DataFrame:
    """Methods that are equal in law, for each world deals luck and noise out anew."""
    return frame(draw.permuted(drawn(draw, worlds, np.full(METHODS, -1.5)).to_numpy(), axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("worlds", WORLDS)
def test_equal_methods_are_told_apart_in_at_most_5_percent_of_pools(worlds: int) -> None:
    draw, pools = np.random.default_rng(worlds), 400
    found = [differences({10: equal(draw, worlds), 15: equal(draw, worlds)}) for _ in range(pools)]
    assert np.mean([any(one.survives for one in pool) for pool in found]) <= 0.05


@pytest.mark.parametrize(("worlds", "share"), [(5, 0.95), (8, 0.99)])
def test_a_true_difference_is_found(worlds: int, share: float) -> None:
    draw, found, pools = np.random.default_rng(worlds), 0, 200
    for _ in range(pools):
        pairs = differences({15: drawn(draw, worlds, np.array([-3.0, 0.5, 0.5, 0.5]))})
        found += all(one.survives and one.near == "a" for one in pairs if "a" in (one.near, one.far))
    assert found / pools >= share


def test_a_single_pair_is_the_paired_t_test() -> None:
    table = drawn(np.random.default_rng(0), 5, np.array([-2.0, -1.0]))
    (found,) = differences({15: table})
    assert (found.near, found.far) == ("a", "b")
    assert found.p == pytest.approx(ttest_rel(table["a"], table["b"]).pvalue)
    bounds = tuple(ttest_1samp(table["b"] - table["a"], 0).confidence_interval())
    assert found.farther[1:] == pytest.approx(bounds)


def test_twins_tie_and_a_constant_difference_survives() -> None:
    x = np.random.default_rng(0).uniform(0.1, 0.3, 4)
    found = {one.near + one.far: one for one in differences({15: frame(np.stack([x, x, x + 0.1], axis=1))})}
    assert (found["ab"].farther, found["ab"].p) == ((0.0, 0.0, 0.0), 1.0)
    assert found["ac"].survives
    assert found["bc"].survives


def test_all_pairs_of_all_ratios_share_one_error() -> None:
    table = drawn(np.random.default_rng(3), 8, np.array([-2.0, -1.8]))
    (alone,) = differences({15: table})
    beside = differences({15: table, 10: table})
    assert [one.p for one in beside] == pytest.approx([min(1.0, 2 * alone.p)] * 2)


@pytest.mark.parametrize("worlds", [1, 2])
def test_two_worlds_are_too_few_for_an_interval(worlds: int) -> None:
    table = frame(np.full((worlds, 2), 0.25))
    found = mean(table["a"].tolist(), top=1.0)
    assert found.mean == 0.25
    assert all(map(math.isnan, found[1:]))
    (pair,) = differences({15: table})
    assert math.isnan(pair.p)
    assert not pair.survives
    assert rank_chances(table).shape == (2, 0)


def test_an_interval_stays_within_its_bounds() -> None:
    _, low, high = mean([0.001, 0.002, 0.3], top=1.0)
    assert 0.0 < low < 0.101 < high < 1.0
    assert mean([1.0, 1.0, 1.0], top=1.0) == (1.0, 1.0, 1.0)


def test_studies_of_one_world_count_as_one() -> None:
    found = by_world(pd.Series([0.1, 0.3, 0.5]), pd.Series(["x", "x", "y"]))
    assert found.to_dict() == {"x": pytest.approx(0.2), "y": 0.5}


def test_equal_methods_share_their_ranks_and_the_nearest_is_first() -> None:
    x = np.random.default_rng(0).uniform(0.1, 0.3, 5)
    shares = rank_chances(frame(np.stack([x, x, x + 0.5], axis=1)))
    assert shares.shape == (3, 3)
    assert shares.sum(axis=1).to_list() == pytest.approx([1.0] * 3)
    assert list(shares.loc["c"]) == [0.0, 0.0, 1.0]
    assert list(shares.loc["a"]) == pytest.approx([0.5, 0.5, 0.0], abs=0.02)


@pytest.mark.parametrize("worlds", WORLDS)
def test_the_chance_that_one_is_first_is_that_of_the_paired_test(worlds: int) -> None:
    table = drawn(np.random.default_rng(worlds), worlds, np.array([-1.6, -1.4]))
    chance = ttest_rel(table["a"], table["b"], alternative="less").pvalue
    assert rank_chances(table).loc["a", 1] == pytest.approx(1.0 - chance, abs=0.012)  # three errors of the draws


def test_parts_of_a_variance_are_found() -> None:
    """Planted: people 0.3, seeds 0.2, search 0.4 and world 0.6 (spreads), each world searched twice."""
    draw, worlds = np.random.default_rng(0), 4000
    names = [f"{n}" for n in range(worlds) for _ in range(2)]
    shared = np.repeat(draw.normal(0, math.hypot(0.3, 0.6), worlds), 2)
    distance = shared + draw.normal(0, math.hypot(0.2, 0.4), 2 * worlds)
    found = parts(distance.tolist(), [0.09] * len(names), [0.04] * len(names), names)
    assert found == pytest.approx(Parts(0.09, 0.04, 0.16, 0.36), rel=0.1)
    once = parts(distance[::2].tolist(), [0.09] * worlds, [0.04] * worlds, names[::2])
    assert math.isnan(once.search)
    assert once.world == pytest.approx(0.16 + 0.36, rel=0.1)
    assert once.total == pytest.approx(0.09 + 0.04 + 0.52, rel=0.1)


def test_parts_are_never_negative_and_unknown_with_two_worlds() -> None:
    assert parts([0.1, 0.1, 0.1], [0.01] * 3, [0.01] * 3, ["x", "y", "z"]).world == 0.0
    two = parts([0.1, 0.3, 0.4], [0.01] * 3, [0.02] * 3, ["x", "y", "y"])
    assert two[:2] == pytest.approx((0.01, 0.02))
    assert all(map(math.isnan, (*two[2:], two.total)))


FOUND = [
    Difference(15, "vkd", "npo", mean([0.1, 0.11, 0.12]), 0.01),
    Difference(15, "npo", "kl", mean([0.1, -0.1, 0.1]), 0.9),
]


@pytest.mark.parametrize(
    ("near", "other", "tied", "answer"),
    [
        ("vkd", "npo", False, "agreed"),
        ("npo", "vkd", False, "contradicted"),
        ("kl", "npo", False, "not confirmed"),
        ("npo", "vkd", True, "tie told apart"),
        ("kl", "npo", True, "agreed"),
        ("vkd", "wga", False, None),
    ],
)
def test_what_a_pool_says_to_a_statement(near: str, other: str, tied: bool, answer: Said | None) -> None:
    assert said(Statement(15, near, other, tied), FOUND) == answer
    assert said(Statement(10, near, other, tied), FOUND) is None


def test_all_that_a_pool_can_say_is_listed() -> None:
    assert get_args(Said) == SAID


def test_too_few_other_worlds_say_nothing() -> None:
    unknown = FOUND[0]._replace(p=math.nan)
    assert said(Statement(15, "vkd", "npo", tied=False), [unknown]) is None
