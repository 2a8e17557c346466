"""Which sampler draws, and that quasi-random points are what they are said to be."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, get_args

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from study.core.sampling import model_for, modelled_from
from study.core.terms import Model, SamplerName
from study.engine.quasi_random import QuasiRandomSampler, at
from study.engine.samplers import build

RATE, COUNT = FloatDistribution(1e-5, 1e-1, log=True), IntDistribution(1, 8)
KIND = CategoricalDistribution(["a", "b", "c"])


def trials(number: int, /, **space: BaseDistribution) -> list[FrozenTrial]:
    params = {name: at(one, 0.5) for name, one in space.items()}
    return [create_trial(values=[0.5, 0.5], params=params, distributions=space) for _ in range(number)]


@pytest.mark.parametrize(
    ("asked", "earlier", "startup", "model"),
    [
        ("auto", 5, 6, "sobol"), ("auto", 6, 6, "tpe"), ("auto", 47, 0, "sobol"), ("auto", 48, 0, "tpe"),
        ("tpe", 5, 0, "random"), ("tpe", 6, 0, "tpe"), ("gp", 7, 8, "random"), ("gp", 8, 8, "gp"),
        ("sobol", 100, 6, "sobol"), ("random", 100, 6, "random"), ("nsga2", 0, 6, "nsga2"),
    ],
)  # fmt: skip
def test_the_sampler_fits_the_number_of_results(asked: SamplerName, earlier: int, startup: int, model: Model) -> None:
    assert model_for(asked, earlier, startup) == model


@pytest.mark.parametrize(
    ("asked", "startup", "priors", "first"),
    [
        ("auto", 0, 0, 48), ("auto", 0, 20, 28), ("auto", 0, 60, 6), ("auto", 3, 60, 3), ("auto", 12, 2, 10),
        ("tpe", 0, 20, 6), ("gp", 9, 20, 9), ("nsga2", 0, 0, 12), ("sobol", 5, 60, None), ("random", 0, 0, None),
    ],
)  # fmt: skip
def test_from_when_results_are_modelled(asked: SamplerName, startup: int, priors: int, first: int | None) -> None:
    """What is told of an earlier study counts for `auto` alone, which needs a few trials of its own all the same."""
    assert modelled_from(asked, startup, priors) == first
    if first is not None and asked in ("auto", "tpe", "gp"):
        drawn = [model_for(asked, earlier, startup, priors) for earlier in (first - 1, first)]
        assert drawn == ["sobol" if asked == "auto" else "random", "tpe" if asked == "auto" else asked]


@pytest.mark.parametrize("model", get_args(Model))
def test_every_sampler_draws_within_the_space(model: Model) -> None:
    """And equal seeds draw the same."""

    def drawn(seed: int) -> dict[str, Any]:
        study = optuna.create_study(directions=["minimize", "maximize"])
        study.add_trials(trials(12, rate=RATE, count=COUNT, kind=KIND))
        with warnings.catch_warnings(action="ignore"):
            study.sampler = build(model, seed, 5, 12, ["rate", "count", "kind"])
            return dict(study.ask({"rate": RATE, "count": COUNT, "kind": KIND}).params)

    assert drawn(3) == drawn(3)
    assert 1e-5 <= drawn(3)["rate"] <= 1e-1


def points(count: int, seed: int, names: Sequence[str] = ("a", "b")) -> list[dict[str, Any]]:
    space: dict[str, BaseDistribution] = {"a": FloatDistribution(0.0, 1.0), "b": FloatDistribution(0.0, 1.0)}
    study = optuna.create_study()
    found = []
    for number in range(count):
        study.sampler = QuasiRandomSampler(number, seed, names)
        found.append(study.ask(space).params)
    return found


def test_quasi_random_points_fill_every_cell() -> None:
    """Of 16 points one lies in each of 16 cells, however the square is cut in powers of two; random ones miss many."""
    for seed in range(3):
        found = points(16, seed)
        for rows in (1, 2, 4, 8, 16):
            cells = {(int(p["a"] * rows), int(p["b"] * 16 / rows)) for p in found}
            assert len(cells) == 16
    assert points(4, 0) != points(4, 1)


def test_a_parameter_keeps_its_dimension() -> None:
    """Whatever is asked for before it: one that is known has its own, a new one the next."""
    study, space = optuna.create_study(), FloatDistribution(0.0, 1.0)
    study.sampler = QuasiRandomSampler(3, 0, ["a", "b"])
    b = study.ask({"b": space}).params["b"]
    study.sampler = QuasiRandomSampler(3, 0, ["a", "b"])
    both = study.ask({"c": space, "b": space}).params
    assert both["b"] == b != both["c"]


@pytest.mark.parametrize(
    "distribution",
    [RATE, COUNT, KIND, FloatDistribution(-2.0, 3.0), FloatDistribution(0.0, 1.0, step=0.25),
     IntDistribution(10, 1000, log=True), IntDistribution(0, 10, step=5)],
)  # fmt: skip
def test_a_share_of_a_distribution(distribution: Any) -> None:
    """Values are within it and do not fall; the middle one is in the middle of it."""
    values = [at(distribution, share / 1000) for share in range(1000)]
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in values)
    inner = [distribution.to_internal_repr(value) for value in values]
    assert inner == sorted(inner)
    if isinstance(distribution, CategoricalDistribution):
        assert [values.count(choice) for choice in distribution.choices] == pytest.approx([333, 333, 334], abs=1)
    elif distribution.log:
        assert math.log(values[500]) == pytest.approx(
            (math.log(distribution.low) + math.log(distribution.high)) / 2, abs=0.05
        )
    if distribution == COUNT:
        assert {value: values.count(value) for value in range(1, 9)} == dict.fromkeys(range(1, 9), 125)
