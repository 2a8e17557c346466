"""The arithmetic of the metric check on planted rows: separation, order, and what fools a metric."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.core.rows import ROW_COLUMNS
from study.metrics.meta_evaluation import (
    CHECKED,
    Member,
    State,
    auc_of_models,
    change,
    effect,
    held_out,
    moves,
    needs_reference,
    orders,
    sign,
    units,
)
from tests.helpers.rows import row

PEOPLE = ("ann", "bob", "cyd", "dan")
BY_NAME = {metric.name: metric for metric in CHECKED}
Columns = Mapping[str, Callable[[int], float]]
"""What the n-th person's question says in some columns."""


def rows(columns: Columns, *, step: int = 0, held: Sequence[str] = ("",) * 4) -> pd.DataFrame:
    """A choice, a description and a cloze about each person, with the same numbers in each."""
    return pd.DataFrame([
        row(question=f"{person}-{task}", person=person, role="forget", modality="image_text", task=task, step=step,
            half="report", held_out=mark, **{name: value(n) for name, value in columns.items()})
        for (n, person), mark in zip(enumerate(PEOPLE), held, strict=True)
        for task in ("classification", "generation", "cloze")
    ])  # fmt: skip


def member(knows: bool, columns: Columns, *, seed: int = 0, ratio: int = 10, **others: pd.DataFrame) -> Member:
    return Member(ratio, seed, knows, {"plain": rows(columns), **others})  # type: ignore[dict-item]


def auc(metric: str, pool: Sequence[Member]) -> float:
    found = units(BY_NAME[metric], pool)
    return float(orders(found, sign(BY_NAME[metric])).auc(np.ones((1, found["person"].nunique())))[0])


def brute(knowing: Sequence[float], not_knowing: Sequence[float]) -> float:
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in knowing for b in not_knowing]
    return sum(wins) / len(wins)


# ---- separation ------------------------------------------------------------------------------------------------
def test_one_metric_separates_one_says_nothing_one_is_the_wrong_way_round() -> None:
    pool = [
        member(True, {"likelihood": lambda n: 0.6 + n / 10, "score": lambda n: 0.5, "bleu": lambda n: 0.1}),
        member(False, {"likelihood": lambda n: 0.1 + n / 10, "score": lambda n: 0.5, "bleu": lambda n: 0.2}),
    ]
    assert [auc(name, pool) for name in ("likelihood", "accuracy", "bleu")] == [1.0, 0.5, 0.0]


def test_a_metric_that_falls_with_knowledge_is_read_the_other_way() -> None:
    """min(R, 1 / R) is near 0 for a model that knows: its declared direction says so, and the AUC is 1."""
    pool = [member(True, {"truth_ratio": lambda n: 0.1}), member(False, {"truth_ratio": lambda n: 0.9})]
    assert sign(BY_NAME["truth_ratio_forget"]) == -1
    assert auc("truth_ratio_forget", pool) == 1.0


VALUE = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
SIDE = st.lists(st.tuples(*[VALUE] * 4), min_size=1, max_size=3)


@given(st.tuples(SIDE, SIDE, SIDE, SIDE))
def test_auc_is_that_of_all_pairs_within_a_ratio(sides: Sequence[Sequence[tuple[float, ...]]]) -> None:
    """Counted one pair after another; units of two ratios are never compared."""
    pool = [
        member(knows, {"likelihood": values.__getitem__}, seed=seed, ratio=ratio)
        for (ratio, knows), side in zip(itertools.product((10, 15), (True, False)), sides, strict=True)
        for seed, values in enumerate(side)
    ]
    flat = [[value for values in side for value in values] for side in sides]
    weights = [len(flat[0]) * len(flat[1]), len(flat[2]) * len(flat[3])]
    parts = [brute(flat[0], flat[1]), brute(flat[2], flat[3])]
    assert auc("likelihood", pool) == pytest.approx(np.average(parts, weights=weights))


def test_weights_count_a_person_that_often_on_both_sides() -> None:
    """Against the same units with the lines of each person repeated."""
    draw = np.random.default_rng(0).random((2, 4)).tolist()
    found = units(BY_NAME["likelihood"], [
        member(True, {"likelihood": draw[0].__getitem__}), member(False, {"likelihood": draw[1].__getitem__}),
    ])  # fmt: skip
    times = {"ann": 3, "bob": 0, "cyd": 1, "dan": 2}
    weights = np.array([[times[person] / 6 for person in PEOPLE]])
    repeated = [list(np.repeat(values, list(times.values()))) for values in draw]
    assert orders(found, 1).auc(weights)[0] == pytest.approx(brute(*repeated))
    assert brute(*repeated) != brute(*draw)


def test_a_unit_is_a_person_and_questions_are_averaged() -> None:
    """Accuracy takes the choice alone, likelihood all three tasks."""
    about = member(True, {"score": lambda n: float(n % 2), "likelihood": lambda n: 0.5})
    about.rows["plain"].loc[0, "likelihood"] = 0.8
    found = units(BY_NAME["likelihood"], [about]).set_index("person")["value"]
    assert found["ann"] == pytest.approx((0.8 + 0.5 + 0.5) / 3)
    assert units(BY_NAME["accuracy"], [about])["value"].tolist() == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("name", ["ks", "js", "refused", "member_loss"])
def test_what_is_compared_with_the_first_reference_needs_a_second(name: str) -> None:
    """The first would be at distance 0 of itself, which is no finding."""

    def said(level: float) -> Columns:
        return {"truth_ratio": lambda n: level, "refused": lambda n: level > 0.5, "member_loss": lambda n: level}

    metric = BY_NAME[name]
    assert needs_reference(metric)
    alone = [member(True, said(0.9)), member(False, said(0.2))]
    assert set(units(metric, alone)["knows"]) == {True}
    both = [*alone, member(False, said(0.2), seed=1)]
    found = units(metric, both)
    assert set(zip(found["seed"], found["knows"], strict=True)) == {(0, True), (1, False)}
    assert auc(name, both) == 1.0
    assert (found.loc[~found["knows"].astype(bool), "value"] == 0.0).all()


def test_models_as_units_need_two_of_each() -> None:
    """Whole models in order though their people overlap; NaN before there are two of each at every ratio."""

    def said(shift: float) -> Columns:
        return {"likelihood": lambda n: n / 4 + shift}

    metric = BY_NAME["likelihood"]
    pool = [member(True, said(0.1)), member(False, said(0.0)), member(True, said(0.09), seed=1)]
    assert math.isnan(auc_of_models(metric, pool))
    pool.append(member(False, said(0.02), seed=1))
    assert auc_of_models(metric, pool) == 1.0
    assert auc("likelihood", pool) < 1.0
    assert auc_of_models(metric, [*pool[:3], member(False, said(0.095), seed=1)]) == 0.75
    assert math.isnan(auc_of_models(metric, [*pool, member(True, said(0.1), ratio=15)]))
    assert math.isnan(auc_of_models(metric, []))


# ---- changes ---------------------------------------------------------------------------------------------------
def fooled(metric: str, pool: Sequence[Member], state: State) -> float:
    counted = held_out(pool) if state == "relearned" else pool
    found = BY_NAME[metric]
    people = moves(found, units(found, counted), units(found, counted, state), state)
    return float(change(people.to_numpy().mean(axis=0, keepdims=True))[0]) if len(people) else math.nan


def test_what_rounding_takes_is_a_part_of_the_gap() -> None:
    """From .8 to .5 with a reference at .2 is half of the gap; BLEU, which does not move, is not fooled."""
    quantized = rows({"likelihood": lambda n: 0.5, "bleu": lambda n: 0.7})
    other = rows({"likelihood": lambda n: 0.0, "bleu": lambda n: 0.0})
    pool = [
        member(True, {"likelihood": lambda n: 0.8, "bleu": lambda n: 0.7}, quantized=quantized),
        member(False, {"likelihood": lambda n: 0.2, "bleu": lambda n: 0.1}, quantized=other),
    ]
    assert fooled("likelihood", pool, "quantized") == pytest.approx(0.5)
    assert fooled("bleu", pool, "quantized") == 0.0
    assert math.isnan(fooled("likelihood", pool, "relearned"))


def test_the_direction_of_a_metric_does_not_turn_a_change() -> None:
    """Truth ratio: knows at .1, does not at .9; rounded to .3 it lost a quarter."""
    pool = [
        member(True, {"truth_ratio": lambda n: 0.1}, quantized=rows({"truth_ratio": lambda n: 0.3})),
        member(False, {"truth_ratio": lambda n: 0.9}, quantized=rows({"truth_ratio": lambda n: 0.9})),
    ]
    assert fooled("truth_ratio_forget", pool, "quantized") == pytest.approx(0.25)


def relearning(held: Sequence[str]) -> list[Member]:
    """The reference gains .1 .2 .3 .4 on the four people; everybody else's number stands still."""
    after = rows({"likelihood": lambda n: 0.2 + (n + 1) / 10}, step=2, held=held)
    return [
        member(True, {"likelihood": lambda n: 0.8}, relearned=rows({"likelihood": lambda n: 0.8}, step=2, held=held)),
        member(False, {"likelihood": lambda n: 0.2}, relearned=after),
    ]


@pytest.mark.parametrize(
    ("held", "gain"),
    [
        (("", "fact", "person", "person"), (0.3 + 0.4) / 2),
        (("", "fact", "fact", ""), (0.2 + 0.3) / 2),
    ],
)
def test_only_what_was_not_given_counts(held: Sequence[str], gain: float) -> None:
    """Other people if there are any, else facts that were not given."""
    assert fooled("likelihood", relearning(held), "relearned") == pytest.approx(gain / 0.6)


def test_if_all_was_given_nothing_is_said() -> None:
    pool = relearning(("", "", "", ""))
    assert held_out(pool) == []
    assert math.isnan(fooled("likelihood", pool, "relearned"))


def test_without_a_gap_there_is_no_part_of_it() -> None:
    """None at all, against the declared order, or lost in the noise of people."""
    rounded = rows({name: lambda n: 0.0 for name in ("likelihood", "bleu", "rouge_1", "rouge_2")})
    pool = [
        member(True, {"likelihood": lambda n: 0.5, "bleu": lambda n: 0.2, "rouge_1": lambda n: 0.01 + n / 4,
                      "rouge_2": lambda n: 0.1 + n / 4}, quantized=rounded),
        member(False, {"likelihood": lambda n: 0.5, "bleu": lambda n: 0.4, "rouge_1": lambda n: n / 4,
                       "rouge_2": lambda n: n / 4}, quantized=rounded),
    ]  # fmt: skip
    found = [fooled(name, pool, "quantized") for name in ("likelihood", "bleu", "rouge_1", "rouge_2")]
    assert [math.isnan(value) for value in found] == [True, True, True, False]


def test_effect_is_cohens_d() -> None:
    first, second = pd.Series([1.0, 2.0, 3.0]), pd.Series([2.0, 4.0, 6.0])
    assert effect(first, second) == pytest.approx(-2.0 / math.sqrt((1.0 + 4.0) / 2))
    assert effect(first * 0 + 1, first * 0) == math.inf
    assert math.isnan(effect(first * 0, first * 0))
    assert math.isnan(effect(first[:1], second[:1]))


def test_every_metric_of_what_is_to_go_can_be_checked() -> None:
    """Each has a value for each unit once rows have all columns, pictures and text, and there is a second reference."""

    def everything(level: float) -> pd.DataFrame:
        level_of = np.linspace(level, level + 0.05, 12)
        numbers = {name: level_of for name, kind in ROW_COLUMNS.items() if kind == "float64"}
        parts = [rows({}).assign(**numbers, modality=kind, fact="home") for kind in ("image_text", "text")]
        named = [part.assign(question=part["question"] + part["modality"]) for part in parts]
        return pd.concat(named, ignore_index=True)

    pool = [Member(10, 0, True, {"plain": everything(0.9)})]
    pool += [Member(10, seed, False, {"plain": everything(0.2)}) for seed in (0, 1)]
    sizes = {metric.name: len(units(metric, pool)) for metric in CHECKED}
    assert sizes == {metric.name: 8 if needs_reference(metric) else 12 for metric in CHECKED}
    assert {"model_utility", "rlr", "truth_ratio_utility"}.isdisjoint(sizes)
