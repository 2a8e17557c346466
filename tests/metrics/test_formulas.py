"""Likelihoods of one question's answers, against sums by hand and brute force."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.metrics.formulas import beats, exposure, truth_ratio

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
