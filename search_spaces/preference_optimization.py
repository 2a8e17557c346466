"""What is searched for preference optimization: the weight of the retain loss, schedule, and beta if it is used."""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods.preference_optimization import PreferenceOptimization


def space(trial: BaseTrial, default: PreferenceOptimization) -> PreferenceOptimization:
    """A proposal around the preset's default."""
    used = default.form == "dpo"
    return replace(
        default,
        beta=trial.suggest_float("beta", 0.05, 2.0, log=True) if used else default.beta,
        retain_weight=trial.suggest_float("retain_weight", 0.3, 10.0, log=True),
        schedule=schedule(trial, default.schedule),
    )
