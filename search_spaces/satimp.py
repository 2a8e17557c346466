"""What is searched for SatImp: both powers of the weight, both loss weights and the schedule."""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods.satimp import SatImp


def space(trial: BaseTrial, default: SatImp) -> SatImp:
    """A proposal around the preset's default."""
    return replace(
        default,
        saturation=trial.suggest_float("saturation", 0.5, 10.0, log=True),
        importance=trial.suggest_float("importance", 0.0, 2.0),
        forget_weight=trial.suggest_float("forget_weight", 0.03, 3.0, log=True),
        retain_weight=trial.suggest_float("retain_weight", 0.3, 10.0, log=True),
        schedule=schedule(trial, default.schedule),
    )
