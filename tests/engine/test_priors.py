"""Trials of an earlier search: how far they foretell this one, how many are told, and when that is decided."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from study.engine.priors import FIRST, agreement, kept, place, weighed_after

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1e-3, log=True), "steps": IntDistribution(0, 100),
    "kind": CategoricalDistribution("ab"),
}  # fmt: skip
Values = Callable[[float, float], tuple[float, float]]


def trials(number: int, values: Values, seed: int) -> list[FrozenTrial]:
    """Random points of a space, with values that depend on where they lie."""
    drawn, found = random.Random(seed), []
    for _ in range(number):
        params: dict[str, Any] = {
            "rate": 10 ** drawn.uniform(-5, -3),
            "steps": drawn.randint(0, 100),
            "kind": drawn.choice("ab"),
        }
        at = [place(SPACE[name], params[name]) for name in ("rate", "steps")]
        found.append(create_trial(params=params, distributions=SPACE, values=list(values(at[0], at[1]))))
    return found


def like(rate: float, steps: float) -> tuple[float, float]:
    return rate, steps


def otherwise(rate: float, steps: float) -> tuple[float, float]:
    """The second objective is the other way round."""
    return rate, -steps


def test_what_is_alike_agrees_and_what_is_reversed_does_not() -> None:
    """The least of both objectives counts: one that is foretold does not make up for one that is not."""
    earlier, known = trials(200, like, 0), trials(30, like, 1)
    assert agreement(earlier, known) > 0.6
    assert agreement(earlier, trials(30, otherwise, 1)) < -0.6
    assert agreement(earlier, earlier[:20]) == 1.0


def test_the_share_that_agrees_is_told_evenly_spaced() -> None:
    earlier = trials(100, like, 0)
    told = kept(earlier, trials(30, like, 1))
    share = agreement(earlier, trials(30, like, 1))
    places = [next(at for at, one in enumerate(earlier) if one is mine) for mine in told]
    assert len(told) == round(share * 100)
    assert {b - a for a, b in itertools.pairwise(places)} <= {1, 2}
    assert kept(earlier, trials(30, otherwise, 1)) == []
    assert kept(earlier, earlier[:20]) == earlier


def test_chance_is_hardly_believed() -> None:
    """Of noise a tenth is told on average, with as little as is known when it is first asked."""
    noise = random.Random(0)
    earlier = trials(30, lambda rate, steps: (noise.random(), noise.random()), 0)
    shares = [len(kept(earlier, trials(FIRST - 1, like, seed))) / 30 for seed in range(200)]
    assert sum(shares) / len(shares) < 0.1


@pytest.mark.parametrize(("earlier", "known"), [(0, 30), (30, 0), (30, 2)])
def test_without_enough_nothing_is_believed(earlier: int, known: int) -> None:
    assert kept(trials(earlier, like, 0), trials(known, like, 0)) == []


def test_a_parameter_that_only_one_was_asked_for_sets_trials_apart() -> None:
    """The nearest has the same choice, though its number is a little farther off."""

    def one(kind: str, value: float, **numbers: float) -> FrozenTrial:
        space = {name: FloatDistribution(0.0, 1.0) for name in numbers} | {"kind": SPACE["kind"]}
        return create_trial(params={"kind": kind, **numbers}, distributions=space, values=[value])

    earlier = [one("a", 0.0, x=0.5), one("b", 1.0, x=0.9), one("b", 2.0)]
    known = [one("a", 0.0, x=0.6), one("b", 1.0, x=0.5), one("b", 2.0)]
    assert agreement(earlier, known) == 1.0


def test_earlier_trials_are_weighed_again_whenever_trials_have_doubled() -> None:
    asked = [weighed_after(trials) for trials in range(50)]
    assert asked[FIRST - 1 : FIRST + 1] == [0, FIRST]
    assert sorted(set(asked)) == [0, 6, 12, 24, 48]
    assert asked == sorted(asked)
