"""What is searched for UNDIAL: how far the taught token is lowered, the retain loss and the schedule.

Open-MMUnlearning's grid is gamma in 3, 10, 30.
"""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods.undial import UNDIAL


def space(trial: BaseTrial, default: UNDIAL) -> UNDIAL:
    """A proposal around the preset's default."""
    return replace(
        default,
        gamma=trial.suggest_float("gamma", 3.0, 30.0, log=True),
        retain_weight=trial.suggest_categorical("retain_weight", [0.0, 0.3, 1.0, 3.0]),
        schedule=schedule(trial, default.schedule),
    )
