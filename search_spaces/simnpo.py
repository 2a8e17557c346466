"""What is searched for SimNPO: temperature, margin, both loss weights and the schedule."""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods.simnpo import SimNPO


def space(trial: BaseTrial, default: SimNPO) -> SimNPO:
    """A proposal around the preset's default."""
    return replace(
        default,
        beta=trial.suggest_float("beta", 1.0, 10.0, log=True),
        delta=trial.suggest_float("delta", 0.0, 2.0),
        forget_weight=trial.suggest_float("forget_weight", 0.05, 2.0, log=True),
        retain_weight=trial.suggest_float("retain_weight", 0.3, 10.0, log=True),
        schedule=schedule(trial, default.schedule),
    )
