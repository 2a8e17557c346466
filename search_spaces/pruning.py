"""What is searched for pruning: how much goes, of what, and whether every layer loses the same."""

from __future__ import annotations

from dataclasses import replace
from typing import cast, get_args

from optuna.trial import BaseTrial

from search_spaces._parts import parts
from study.attacks.pruning import Pruning, Scope


def space(trial: BaseTrial, default: Pruning) -> Pruning:
    """A proposal around the preset's default."""
    return replace(
        default,
        share=trial.suggest_float("share", 0.01, 0.9),
        scope=cast(Scope, trial.suggest_categorical("scope", get_args(Scope))),
        parts=parts(trial, "parts"),
    )
