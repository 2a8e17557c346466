"""Likelihoods of one question's answers, against sums by hand and brute force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.metrics.formulas import any_of, beats, exposure, leak_at_k, truth_ratio

LOGPS = st.floats(-20.0, 0.0)
NAN = float("nan")


def test_the_truth_ratio_is_wrong_over_right() -> None:
    """(0.2 + 0.4) / 2 over 0.6: a mean of likelihoods, not of their logarithms."""
    assert truth_ratio(math.log(0.6), [math.log(0.2), math.log(0.4)]) == pytest.approx(0.5)
    assert truth_ratio(math.log(0.1), [math.log(0.4)]) == pytest.approx(4.0)


@given(LOGPS, st.lists(LOGPS, min_size=1, max_size=5))
def test_the_truth_ratio_is_its_formula(right: float, wrong: list[float]) -> None:
    assert truth_ratio(right, wrong) == pytest.approx(sum(map(math.exp, wrong)) / len(wrong) / math.exp(right))


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        (-2000.0, [-1000.0], math.inf),
        (-1000.0, [-2000.0, -3000.0], 0.0),
        (-2000.0, [-2000.0, -5000.0], 0.5),
        (-math.inf, [-1.0], math.inf),
        (-1.0, [-math.inf], 0.0),
    ],
)
def test_tiny_likelihoods_are_compared(right: float, wrong: list[float], expected: float) -> None:
    """Both round to 0 as likelihoods, and yet one is larger."""
    assert truth_ratio(right, wrong) == pytest.approx(expected)


def test_two_impossible_answers_have_no_ratio() -> None:
    assert math.isnan(truth_ratio(-math.inf, [-math.inf]))


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        (-1.0, [-2.0, -3.0, -4.0], 2.0),  # first of four
        (-2.5, [-2.0, -3.0, -4.0], 1.0),  # second of four
        (-5.0, [-2.0, -3.0, -4.0], 0.0),  # last
        (-2.0, [-2.0, -2.0, -2.0], 0.0),  # all alike: last
        (-2.0, [-2.0, -3.0, -4.0], 1.0),  # ties with the first: second
        (-1.0, [-2.0, -3.0], math.log2(3)),
    ],
)
def test_exposure_in_bits(right: float, wrong: list[float], expected: float) -> None:
    assert exposure(right, wrong) == pytest.approx(expected)


@given(LOGPS, st.lists(LOGPS, min_size=1, max_size=7, unique=True))
def test_exposure_is_that_of_the_place_in_order(right: float, wrong: list[float]) -> None:
    """Behind its equals in the order from likely to unlikely."""
    order = sorted([*wrong, right], reverse=True)
    rank = len(order) - order[::-1].index(right)
    assert exposure(right, wrong) == pytest.approx(math.log2(len(order) / rank))


@pytest.mark.parametrize(
    ("right", "others", "expected"),
    [(3.0, [1.0, 2.0], 1.0), (1.0, [1.0, 2.0], 0.25), (0.0, [1.0], 0.0), (2.0, [1.0, 2.0, 3.0], 0.5)],
)
def test_ties_count_half(right: float, others: list[float], expected: float) -> None:
    assert beats(right, others) == expected


@given(LOGPS, st.lists(LOGPS, min_size=1, max_size=7))
def test_beaten_and_beating_add_up(right: float, others: list[float]) -> None:
    mirrored = beats(-right, [-other for other in others])
    assert beats(right, others) + mirrored == pytest.approx(1.0)


@pytest.mark.parametrize("measure", [truth_ratio, exposure, beats])
@pytest.mark.parametrize(("right", "others"), [(-1.0, []), (NAN, [-1.0]), (-1.0, [-2.0, NAN])])
def test_nothing_to_compare_is_not_a_number(
    measure: Callable[[float, Sequence[float]], float], right: float, others: list[float]
) -> None:
    """A model that gives NaN has no likelihoods, and is not said to hide."""
    assert math.isnan(measure(right, others))


# ---- leaks ---------------------------------------------------------------------------------------------------------
DRAWS = st.integers(1, 9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n), st.integers(1, n)))


@given(DRAWS)
def test_leak_at_k_is_the_share_of_choices_that_hold_a_leak(drawn: tuple[int, int, int]) -> None:
    leaks, draws, k = drawn
    replies = [True] * leaks + [False] * (draws - leaks)
    choices = list(itertools.combinations(replies, k))
    assert leak_at_k(leaks, draws, k) == pytest.approx(sum(map(any, choices)) / len(choices), abs=1e-12)


@given(st.integers(1, 80).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), st.floats(0.0, 1.0))
def test_leak_at_k_is_unbiased(asked: tuple[int, int], q: float) -> None:
    """Its mean over all that may be drawn, which the share of the draws to the power of k would miss."""
    draws, k = asked
    chances = [math.comb(draws, c) * q**c * (1 - q) ** (draws - c) for c in range(draws + 1)]
    mean = math.fsum(chance * leak_at_k(c, draws, k) for c, chance in enumerate(chances))
    assert mean == pytest.approx(1 - (1 - q) ** k, abs=1e-9)


@pytest.mark.parametrize(("leaks", "draws", "k"), [(0, 8, 9), (9, 8, 1), (-1, 8, 1), (1, 8, 0), (0, 0, 1)])
def test_leak_at_k_takes_no_more_replies_than_there_are(leaks: int, draws: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"leaks={leaks}, draws={draws}, k={k}"):
        leak_at_k(leaks, draws, k)


@given(st.lists(st.floats(0.0, 1.0), max_size=5))
def test_one_of_several_happens(chances: list[float]) -> None:
    happens = 0.0
    for outcome in itertools.product([True, False], repeat=len(chances)):
        likely = math.prod(p if yes else 1 - p for p, yes in zip(chances, outcome, strict=True))
        happens += likely * any(outcome)
    assert any_of(chances) == pytest.approx(happens, abs=1e-12)
