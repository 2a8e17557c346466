"""What is searched for MMUnlearner: the saliency threshold, both loss weights and the schedule."""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods.mmunlearner import MMUnlearner


def space(trial: BaseTrial, default: MMUnlearner) -> MMUnlearner:
    """A proposal around the preset's default."""
    return replace(
        default,
        saliency_threshold=trial.suggest_categorical("saliency_threshold", [0.5, 1.0, 2.0]),
        forget_weight=trial.suggest_float("forget_weight", 0.05, 2.0, log=True),
        retain_weight=trial.suggest_float("retain_weight", 0.5, 10.0, log=True),
        schedule=schedule(trial, default.schedule),
    )
