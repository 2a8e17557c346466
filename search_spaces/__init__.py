"""One search space a method: `space(trial, default)` suggests hyper-parameters around a preset's default.

A parameter is named after the field it sets, so that a default can be proposed and an old trial replayed. Spaces are
Python: a misspelt field fails the type checker.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import BaseTrial, FixedTrial

from study.core.specs import parameters
from study.training.schedule import Schedule

T = TypeVar("T")


def schedule(trial: BaseTrial, default: Schedule) -> Schedule:
    """Learning rate within a factor of four of the default, log-uniform; steps from half of the default to double.

    Of a default in epochs these are searched, which mean the same at every forget ratio.
    """
    rate, steps = default.learning_rate, default.steps
    proposed = replace(default, learning_rate=trial.suggest_float("learning_rate", rate / 4, rate * 4, log=True))
    if default.epochs:
        return replace(proposed, epochs=trial.suggest_float("epochs", default.epochs / 2, default.epochs * 2, log=True))
    return replace(proposed, steps=trial.suggest_int("steps", max(1, steps // 2), steps * 2, log=True))


def refusal(space: Callable[[BaseTrial, Any], Any], default: object, values: Mapping[str, Any]) -> str:
    """Why a space could not propose these values around `default`, or nothing if it could."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna warns of a number out of its range and refuses any other value
        try:
            space(FixedTrial(dict(values)), default)
        except (ValueError, UserWarning) as error:
            return str(error)
    return ""


def variants(space: Callable[[BaseTrial, T], T], default: T, *, fixed: Container[str]) -> Iterator[T]:
    """`default` with each choice of each parameter that has choices and is not `fixed`, one at a time."""
    start = parameters(default)
    for name, asked in ranges(space, default).items():
        if isinstance(asked, CategoricalDistribution) and name not in fixed:
            for choice in asked.choices:
                yield space(FixedTrial({**start, name: choice}), default)


def fitted(
    space: Callable[[BaseTrial, Any], Any], default: object, values: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """What of `values`, which won around another default, a space can propose around this one, and what to say of it.

    Nothing is left if one of them is out of its range. What a space asks for beyond them is the default's; what it does
    not ask for is left out.
    """
    start = parameters(default)
    alone = {name: refusal(space, default, {**start, name: value}) for name, value in values.items()}
    if outside := [f"{name}: {reason}" for name, reason in alone.items() if reason]:
        return {}, "; ".join(outside)
    if reason := refusal(space, default, {**start, **values}):  # of one that is asked for because of another
        return {}, reason
    replay = FixedTrial({**start, **values})
    space(replay, default)
    more, less = (", ".join(sorted(names)) for names in (replay.params.keys() - values, values.keys() - replay.params))
    notes = [*([f"the default's {more}"] if more else []), *([f"without {less}"] if less else [])]
    return {name: value for name, value in values.items() if name in replay.params}, ", ".join(notes)


def ranges(space: Callable[[BaseTrial, Any], Any], default: object) -> dict[str, BaseDistribution]:
    """What a space asks for around `default`, by parameter."""
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    space(trial, default)
    return trial.distributions
