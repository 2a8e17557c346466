"""Trials of Optuna that are not offered every choice of a search space."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from optuna.trial import BaseTrial


def without(trial: BaseTrial, excluded: Mapping[str, Container[Any]]) -> BaseTrial:
    """The same trial, which is not offered the `excluded` choices of a categorical parameter."""
    offered = trial.suggest_categorical

    def suggest(name: str, choices: Sequence[Any]) -> Any:
        return offered(name, [choice for choice in choices if choice not in excluded.get(name, ())])

    trial.suggest_categorical = suggest  # type: ignore[method-assign]  # of this trial alone: nobody else asks it
    return trial
