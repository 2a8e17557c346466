"""One search space a method: `space(trial, default)` suggests hyper-parameters around a preset's default.

A parameter is named after the field it sets, so that a default can be proposed and an old trial replayed. Spaces are
Python: a misspelt field fails the type checker.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, TypeVar, cast

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import BaseTrial, FixedTrial

from study.core.hashing import Json
from study.core.specs import parameters
from study.training.schedule import Schedule

T = TypeVar("T")
DRAWS = 64
"""Random answers that show all that a space may ask for: what hangs on one choice of five is missed by one in a million
such sets."""


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
    """All that a space may ask for around `default`, by parameter, in the order in which it asks."""
    found: dict[str, BaseDistribution] = {}
    for seed in range(DRAWS):
        asked = _Asked(Random(seed))
        space(cast(BaseTrial, asked), default)  # a space asks a trial for nothing else
        found |= {name: distribution for name, distribution in asked.found.items() if name not in found}
    return found


@dataclass(frozen=True)
class _Asked:
    """Answers at random, and notes what it was asked for: a small part of the work of a trial of Optuna."""

    random: Random
    found: dict[str, BaseDistribution] = field(default_factory=dict)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.found[name] = FloatDistribution(low, high, log)
        return self.random.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.found[name] = IntDistribution(low, high, log)
        return self.random.randint(low, high)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.found[name] = CategoricalDistribution(choices)
        return self.random.choice(choices)


def as_json(asked: Mapping[str, BaseDistribution]) -> Json:
    """Ranges as a study writes them down: by parameter, each in Optuna's own form."""
    return {name: json.loads(distribution_to_json(distribution)) for name, distribution in asked.items()}
