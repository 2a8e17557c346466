"""What is searched for NPO: the temperature, the weight of the retain loss and the schedule."""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods.npo import NPO


def space(trial: BaseTrial, default: NPO) -> NPO:
    """A proposal around the preset's default."""
    return replace(
        default,
        beta=trial.suggest_float("beta", 0.05, 2.0, log=True),
        retain_weight=trial.suggest_float("retain_weight", 0.3, 10.0, log=True),
        schedule=schedule(trial, default.schedule),
    )
