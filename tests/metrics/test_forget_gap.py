"""The forget gap: a distance between people's scores that neither a mixture nor a single task can hide behind."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from study.core.terms import Group
from study.metrics.forget_gap import (
    Term,
    forget_gap,
    gap,
    gap_estimate,
    known,
    noise_floor,
    scores,
    smallest_leak,
    terms,
)
from study.metrics.formulas import wasserstein

GROUPS: list[Group] = [("forget", "image_text"), ("test", "image_text")]
UNIT = st.floats(0, 1, allow_subnormal=False)


def rows(choice: list[float], cloze: list[float] | None = None) -> pd.DataFrame:
    """Rows of people with these scores, two questions each around them, in both groups."""
    lines = []
    for role, modality in GROUPS:
        for task, column, levels in (("classification", "probability", choice), ("cloze", "likelihood", cloze or [])):
            for person, level in enumerate(levels):
                for shift in (-0.01, 0.01):
                    line = {"person": f"{person:02d}", "role": role, "modality": modality, "task": task}
                    lines.append({**line, "probability": math.nan, "likelihood": math.nan, column: level + shift})
    return pd.DataFrame(lines)


@given(st.lists(UNIT, min_size=1, max_size=9), st.integers(1, 4), st.data())
def test_the_distance_is_that_of_scipy(one: list[float], times: int, data: st.DataObject) -> None:
    size = len(one) * times
    two = data.draw(st.lists(UNIT, min_size=size, max_size=size))
    assert float(wasserstein(one, two)) == pytest.approx(wasserstein_distance(one, two), abs=1e-12)


def test_a_mixture_that_has_the_mean_of_a_retraining_is_far_from_it() -> None:
    reference = rows([0.2, 0.25, 0.2, 0.3, 0.2, 0.2, 0.25, 0.2, 0.2])
    retraining = rows([0.3, 0.2, 0.2, 0.2, 0.25, 0.2, 0.2, 0.2, 0.25])  # other people, the same distribution
    mixture = rows([0.98, 0.98] + [0.01] * 7)
    assert forget_gap(retraining, [reference], GROUPS) == pytest.approx(0)
    assert forget_gap(mixture, [reference], GROUPS) > 0.3
    assert abs(np.mean([0.98, 0.98] + [0.01] * 7) - 2 / 9) < 0.01  # the mean alone tells nothing


def test_wrong_choices_do_not_hide_right_clozes() -> None:
    reference = rows([0.2] * 6, [0.04] * 6)
    assert forget_gap(rows([0.2] * 6, [0.74] * 6), [reference], GROUPS) == pytest.approx(0.35)


def test_to_know_less_than_the_reference_is_distance_too() -> None:
    assert forget_gap(rows([0.0] * 6), [rows([0.3] * 6)], GROUPS) == pytest.approx(0.3)


def test_references_are_one_population_and_their_own_gaps_the_floor() -> None:
    reference = [rows([0.1] * 6), rows([0.3] * 6)]
    wanted = terms(reference[0], GROUPS)
    assert wanted == [Term("forget", "image_text", "classification"), Term("test", "image_text", "classification")]
    theirs = scores(reference, wanted)
    assert noise_floor(theirs) == pytest.approx([0.2, 0.2])
    assert noise_floor(theirs[:, :1]) == []
    assert gap(theirs[:, :1], theirs) == pytest.approx(0.1)  # half of the population is the model itself


def test_the_worst_person_is_named() -> None:
    model = rows([0.1, 0.1, 0.9, 0.1, 0.1, 0.1])
    found = known([model], terms(model, GROUPS))
    assert found.idxmax() == "02"
    assert found.max() == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (rows([0.1] * 6), "the trial has no forget image_text cloze rows"),
        (rows([0.1] * 6, [math.nan] * 6), "cloze rows without likelihood"),
        (rows([0.1] * 5, [0.1] * 5), "different people"),
    ],
)
def test_what_cannot_be_compared_is_said(model: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forget_gap(model, [rows([0.1] * 6, [0.1] * 6)], GROUPS)


def test_a_person_who_is_not_asked_in_one_way_is_left_out_there() -> None:
    model, reference = rows([0.5] * 6, [0.4] * 6), rows([0.5] * 6, [0.1] * 6)
    unasked = model[~((model["person"] == "05") & (model["task"] == "cloze"))]
    there = reference[~((reference["person"] == "05") & (reference["task"] == "cloze"))]
    assert forget_gap(unasked, [there], GROUPS) == pytest.approx(0.15)


def test_a_term_that_one_person_alone_has_leaves_no_interval() -> None:
    """Without that person there is nothing to compare; the report goes on."""
    draw = np.random.default_rng(0)
    model, references = draw.uniform(0, 0.4, (12, 3, 2)), draw.uniform(0, 0.4, (12, 2, 2))
    model[1:, :, 1] = references[1:, :, 1] = np.nan
    found = gap_estimate(model, references)
    assert found.value == pytest.approx(gap(model, references))
    assert not found.known


def test_the_estimate_knows_people_and_both_kinds_of_seeds() -> None:
    draw = np.random.default_rng(0)
    model, references = draw.uniform(0, 0.4, (12, 3, 2)), draw.uniform(0, 0.4, (12, 2, 2))
    found = gap_estimate(model, references)
    assert found.value == pytest.approx(gap(model, references))
    assert [part.units for part in (*found.people, *found.seeds)] == [12, 3, 2]
    assert found.interval().low < found.value < found.interval().high


@pytest.mark.parametrize(("people", "leak"), [(0, 1.0), (2, 1.0), (30, 0.1), (300, 0.01)])
def test_the_smallest_leak_that_could_have_been_seen(people: int, leak: float) -> None:
    assert smallest_leak(people) == pytest.approx(leak)
    if people > 3:  # the exact bound, which the rule of three approaches from above
        assert 1 - 0.05 ** (1 / people) <= leak < 1.06 * (1 - 0.05 ** (1 / people))
