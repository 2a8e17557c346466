"""What is searched for WGA: the power of the weight, the retain loss and the schedule."""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods.wga import WGA


def space(trial: BaseTrial, default: WGA) -> WGA:
    """A proposal around the preset's default."""
    return replace(
        default,
        beta=trial.suggest_float("beta", 0.1, 5.0, log=True),
        retain_weight=trial.suggest_float("retain_weight", 0.3, 10.0, log=True),
        schedule=schedule(trial, default.schedule),
    )
