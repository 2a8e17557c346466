"""Who is behind after some seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from study.metrics.racing import LEVEL, behind


def test_nobody_is_behind_after_one_seed_or_alone() -> None:
    assert not behind([[0.1], [0.9]]).any()
    assert not behind([[0.1, 0.2, 0.3]]).any()


def test_two_contenders_are_compared_by_a_paired_t_test() -> None:
    """Whose variance over seeds is what the additive model leaves of two."""
    draws = np.random.default_rng(0)
    for _ in range(50):
        distances = draws.random((2, 4)) + draws.random(4)
        worse, better = np.argsort(-distances.mean(axis=1))
        p = ttest_rel(distances[worse], distances[better], alternative="greater").pvalue
        assert behind(distances)[worse] == (p < 1 - LEVEL)
        assert not behind(distances)[better]


def test_what_all_share_does_not_count() -> None:
    """A seed that is hard for everybody says nothing about any of them."""
    seeds = np.array([0.0, 5.0, -3.0])
    assert behind(np.array([[0.1], [0.11], [0.3]]) + seeds + 1e-4 * np.eye(3)).tolist() == [False, True, True]


def test_one_that_ended_badly_is_behind() -> None:
    assert behind([[0.2, 0.2], [0.1, np.inf], [0.2, 0.21]]).tolist() == [False, True, False]
    assert behind([[0.2, np.inf]]).tolist() == [True]


@pytest.mark.parametrize("contenders", [2, 5])
@pytest.mark.parametrize("seeds", [2, 3])
def test_equals_are_seldom_dropped(contenders: int, seeds: int) -> None:
    """Two: in one round of twenty. Of several the best is the luckiest, which drops more of them, but few."""
    draws = np.random.default_rng(1)
    rounds = [behind(draws.normal(size=(contenders, seeds)) + draws.normal(size=seeds)) for _ in range(4000)]
    rate = np.mean([lost.sum() / (contenders - 1) for lost in rounds])
    assert rate == pytest.approx(0.1, abs=0.02) if contenders == 2 else rate < 0.25  # either of two may be the best


def test_a_clear_loser_is_dropped_at_once() -> None:
    draws = np.random.default_rng(2)
    lost = [
        behind([[0.1, 0.1], [0.12, 0.12], [0.13, 0.13], [0.6, 0.6]] + 0.02 * draws.normal(size=(4, 2)))
        for _ in range(500)
    ]
    assert np.mean([found[3] for found in lost]) > 0.99
    assert t.ppf(LEVEL, 3) == pytest.approx(2.353, abs=1e-3)  # three degrees of freedom after two seeds of four
