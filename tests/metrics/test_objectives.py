"""The objectives against hand-computed values and against the properties that the search relies on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.core.rows import ROW_COLUMNS
from study.core.terms import MODALITIES, ROLES, Goal, Group
from study.metrics.objectives import (
    DIRECTIONS,
    distance_to_ideal,
    forget_groups,
    front_mask,
    gap_to,
    keep_groups,
    mean_gap,
    nearest_first,
    objectives,
    utility,
)
from tests.helpers.rows import row

GROUPS = [(role, modality) for role in ("forget", "test", "retain", "real") for modality in ("image_text", "text")]
probabilities = st.lists(st.floats(0.01, 1.0), min_size=16, max_size=16)


def rows(values: list[float]) -> pd.DataFrame:
    """Two classification rows for each (role, modality), with the given probabilities of the right option."""
    return choices(len(values)).assign(probability=values, score=[float(value > 0.5) for value in values])


@cache
def choices(count: int) -> pd.DataFrame:
    """Rows without numbers, made once: properties are tried on many."""
    places = [(number, *GROUPS[number // 2]) for number in range(count)]
    lines = [row(question=f"q{number}", person=f"p{number % 2}", role=role, modality=modality, task="classification",
                 half="select", reply="A") for number, role, modality in places]  # fmt: skip
    return pd.DataFrame(lines).astype(ROW_COLUMNS)


def level(**groups: float) -> pd.DataFrame:
    """Rows with one probability for each group, named like `forget_text`; the rest is 0.8."""
    return rows([groups.get(f"{role}_{modality}", 0.8) for role, modality in GROUPS for _ in range(2)])


REFERENCE = level(forget_image_text=0.3, test_image_text=0.2)


def test_hand_computed_values() -> None:
    """Two gaps of 0.1 and 0.3; five kept parts of which one is halved."""
    trial = level(forget_image_text=0.4, test_image_text=0.5, retain_text=0.4)
    found = objectives(trial, level(), [REFERENCE], "visual")
    assert found == pytest.approx({"forget_gap": 0.2, "utility": 5 / 6})
    assert set(found) == set(DIRECTIONS)


def test_overshoot_is_distance() -> None:
    """Falling below the reference by 0.2 is as far as staying above it by 0.2."""
    below = level(forget_image_text=0.1, test_image_text=0.0)
    above = level(forget_image_text=0.5, test_image_text=0.4)
    assert gap_to([REFERENCE], below, "visual") == pytest.approx(0.2) == gap_to([REFERENCE], above, "visual")


def test_the_goal_decides_what_text_of_forget_people_is() -> None:
    """Under `visual` losing it costs utility, under `full` keeping it costs forgetting."""
    lost = level(forget_text=0.0)
    assert utility(lost, level(), "visual") == 0.0
    assert utility(lost, level(), "full") == 1.0
    assert gap_to([level()], lost, "visual") == 0.0
    assert gap_to([level()], lost, "full") == pytest.approx(0.2)
    for goal in get_args(Goal):
        assert not set(forget_groups(goal)) & set(keep_groups(goal))


def test_more_than_vanilla_is_not_more_than_one() -> None:
    """A better model than vanilla in one group does not pay for a loss in another."""
    assert utility(level(real_text=1.0, retain_text=0.4), level(), "visual") == pytest.approx(5 / 6)


@pytest.mark.parametrize(("role", "modality"), [("test", "image_text"), ("real", "text")])
def test_a_missing_group_is_named(role: str, modality: str) -> None:
    """No group is dropped from a mean without a word."""
    full = level()
    short = full[(full["role"] != role) | (full["modality"] != modality)]
    with pytest.raises(ValueError, match=f"{role} {modality}"):
        objectives(short, full, [full], "visual")


def test_nan_and_zero_yardsticks_are_refused() -> None:
    """A row without probability and a vanilla that knows nothing raise instead of giving NaN."""
    full = level()
    holes = full.assign(probability=np.nan)
    with pytest.raises(ValueError, match="without probability"):
        gap_to([full], holes, "visual")
    with pytest.raises(ValueError, match="nothing there can be kept"):
        utility(full, level(real_text=0.0), "visual")


def test_other_tasks_count_in_the_gap_alone() -> None:
    """A generation has no probability, so utility takes no notice; by its likelihood it is a term of the gap."""
    full = level()
    more = [pd.concat([x, x.assign(task="generation", probability=np.nan, likelihood=0.4)]) for x in (full, REFERENCE)]
    found = objectives(more[0], full, [more[1]], "visual")
    assert found["utility"] == objectives(full, full, [REFERENCE], "visual")["utility"]
    assert found["forget_gap"] == pytest.approx(gap_to([REFERENCE], full, "visual") / 2)  # half the terms are at 0


def test_the_mean_gap_is_blind_to_a_mixture() -> None:
    """One person known and one crushed have the mean of two who are half known."""
    half, mixture = rows([0.5] * 16), rows([0.9, 0.1] * 8)
    assert mean_gap(mixture, [half], "visual") == pytest.approx(0.0)
    assert gap_to([half], mixture, "visual") == pytest.approx(0.4)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(probabilities, probabilities, probabilities, st.sampled_from(get_args(Goal)), st.randoms())
def test_range_order_and_identity(
    trial: list[float], vanilla: list[float], reference: list[float], goal: Goal, random: Any
) -> None:
    """Both lie in [0, 1], rows may come in any order, the reference is at distance 0 and vanilla keeps 1."""
    found = objectives(rows(trial), rows(vanilla), [rows(reference)], goal)
    assert 0.0 <= found["forget_gap"] <= 1.0
    assert 0.0 <= found["utility"] <= 1.0
    order = list(range(len(trial)))
    random.shuffle(order)
    assert objectives(rows(trial).iloc[order], rows(vanilla), [rows(reference)], goal) == found
    assert gap_to([rows(reference)], rows(reference), goal) == 0.0
    assert utility(rows(vanilla), rows(vanilla), goal) == 1.0


@settings(max_examples=60, deadline=None)
@given(probabilities, st.integers(4, 15), st.floats(0.0, 1.0))
def test_utility_never_rises_when_a_kept_probability_falls(values: list[float], which: int, factor: float) -> None:
    """Lowering one probability cannot help."""
    lower = [value * factor if number == which else value for number, value in enumerate(values)]
    assert utility(rows(lower), level(), "visual") <= utility(rows(values), level(), "visual") + 1e-12


@dataclass(frozen=True)
class Named:
    """A trial of which nothing but its key matters."""

    key: str


def test_the_winner_is_the_nearest_to_the_ideal() -> None:
    """Equally near trials go by their keys, in whatever order they come."""
    values = {"c": (0.3, 1.0), "b": (0.1, 0.9), "a": (0.0, 0.2), "d": (0.1, 0.9)}
    distances = {Named(key): distance_to_ideal(f, u) for key, (f, u) in values.items()}
    assert [trial.key for trial in nearest_first(distances)] == ["b", "d", "c", "a"]
    assert nearest_first({trial: distances[trial] for trial in reversed(distances)}) == nearest_first(distances)
    assert distance_to_ideal(0.3, 0.6) == pytest.approx(0.5)
    assert nearest_first(dict[Named, float]()) == []


value = st.integers(0, 1000).map(lambda n: n / 1000)  # apart enough: rounding makes no tie with what a point dominates
points = st.lists(st.tuples(value, value), min_size=1, max_size=12)


@settings(deadline=None)
@given(points)
def test_the_winner_is_on_the_front(values: list[tuple[float, float]]) -> None:
    """Whatever the values."""
    best = nearest_first({Named(f"{at:02d}"): distance_to_ideal(f, u) for at, (f, u) in enumerate(values)})[0]
    assert front_mask([(f, 1.0 - u) for f, u in values])[int(best.key)]


# ---- requests for some attributes only -------------------------------------------------------------------------------
WIDE: list[Group] = [(role, modality) for role in ROLES for modality in MODALITIES]
TASTES = st.dictionaries(st.sampled_from(WIDE), st.lists(st.floats(0.01, 1.0), min_size=1, max_size=3), min_size=10)


def of(groups: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    """Classification rows with the given probabilities in each group."""
    full = rows([0.5] * 16).iloc[:1]
    parts = [
        full.assign(role=role, modality=modality, probability=value)
        for (role, modality), values in groups.items()
        for value in values
    ]
    return pd.concat(parts, ignore_index=True)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


@pytest.mark.slow
@settings(max_examples=40)
@given(TASTES, TASTES, TASTES, st.sampled_from(get_args(Goal)))
def test_spared_groups_are_kept_like_any_other(
    trial: dict[tuple[str, str], list[float]],
    vanilla: dict[tuple[str, str], list[float]],
    reference: dict[tuple[str, str], list[float]],
    goal: Goal,
) -> None:
    """Both objectives against plain loops over all ten groups."""
    found = objectives(of(trial), of(vanilla), [of(reference)], goal)
    gone = [("forget", "image_text"), ("test", "image_text")]
    if goal == "full":
        gone += [("forget", "text"), ("test", "text")]
    stay = [place for place in WIDE if place[0] in ("retain", "real", "spared")]
    if goal == "visual":
        stay += [("forget", "text")]
    gap = sum(abs(mean(trial[place]) - mean(reference[place])) for place in gone) / len(gone)
    parts = [min(1.0, mean(trial[place]) / mean(vanilla[place])) for place in stay]
    assert found["forget_gap"] == pytest.approx(gap)
    assert found["utility"] == pytest.approx(len(parts) / sum(1 / part for part in parts))


def wide(*absent: tuple[str, str], **levels: float) -> pd.DataFrame:
    """Rows of all ten groups but the absent ones, at 0.8 unless said otherwise."""
    return of({(r, m): [levels.get(f"{r}_{m}", 0.8)] for r, m in WIDE if (r, m) not in absent})


NAMELESS = (("forget", "text"), ("test", "text"))


@pytest.mark.parametrize("goal", get_args(Goal))
def test_a_name_has_no_text_to_forget_or_to_keep(goal: Goal) -> None:
    """All text about the forget people is spared then, and is what counts."""
    trial = wide(*NAMELESS, forget_image_text=0.4, spared_text=0.4)
    found = objectives(trial, wide(*NAMELESS), [wide(*NAMELESS, forget_image_text=0.2)], goal)
    assert found == pytest.approx({"forget_gap": 0.1, "utility": 6 / 7})


def test_what_has_only_pictures_may_be_spared_alone() -> None:
    """Everything but the name is to go: no text is spared, and the text of the forget people counts as ever."""
    absent = ("spared", "text")
    assert utility(wide(absent, spared_image_text=0.4), wide(absent), "visual") == pytest.approx(6 / 7)
    with pytest.raises(ValueError, match="forget text"):
        utility(wide(absent, *NAMELESS), wide(absent, *NAMELESS), "visual")


@pytest.mark.parametrize("lost", [("spared", "text"), ("spared", "image_text"), ("forget", "text"), ("real", "text")])
def test_a_group_that_only_one_side_has_is_an_error(lost: tuple[str, str]) -> None:
    """A trial that was not scored on a group cannot drop it, and neither can vanilla."""
    with pytest.raises(ValueError, match=f"the trial has no {' '.join(lost)}"):
        utility(wide(lost), wide(), "visual")
    with pytest.raises(ValueError, match=f"vanilla has no {' '.join(lost)}"):
        utility(wide(), wide(lost), "visual")


@pytest.mark.parametrize("lost", NAMELESS)
def test_text_to_forget_that_only_one_side_has_is_an_error(lost: tuple[str, str]) -> None:
    """The same for what must go under the goal full."""
    with pytest.raises(ValueError, match=f"the trial has no {' '.join(lost)}"):
        gap_to([wide()], wide(lost), "full")
    with pytest.raises(ValueError, match=f"the reference has no {' '.join(lost)}"):
        gap_to([wide(lost)], wide(), "full")
    for goal in get_args(Goal):
        assert keep_groups(goal) == tuple(g for g in keep_groups(goal, WIDE) if g[0] != "spared")
        assert (
            forget_groups(goal)
            == forget_groups(goal, WIDE)
            == forget_groups(goal, [g for g in WIDE if g[0] != "spared"])
        )
