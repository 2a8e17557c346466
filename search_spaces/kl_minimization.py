"""What is searched for KL minimization: the weight of the divergence and the schedule."""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods.kl_minimization import KLMinimization


def space(trial: BaseTrial, default: KLMinimization) -> KLMinimization:
    """A proposal around the preset's default."""
    return replace(
        default,
        kl_weight=trial.suggest_float("kl_weight", 0.5, 50.0, log=True),
        schedule=schedule(trial, default.schedule),
    )
