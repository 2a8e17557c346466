"""Trials of Optuna that are not offered every choice of a search space."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from optuna.trial import BaseTrial


def without(trial: BaseTrial, excluded: Mapping[str, Container[Any]]) -> BaseTrial:
    """The same trial, which is not offered the `excluded` choices of a categorical parameter.

    A search that began with all of them keeps them: choices cannot change on the way.
    """
    offered = trial.suggest_categorical

    def suggest(name: str, choices: Sequence[Any]) -> Any:
        left = [choice for choice in choices if choice not in excluded.get(name, ())]
        try:
            return offered(name, left)
        except ValueError:
            return offered(name, choices)

    trial.suggest_categorical = suggest  # type: ignore[method-assign]  # of this trial alone: nobody else asks it
    return trial
