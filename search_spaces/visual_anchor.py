"""What is searched for visual anchoring: how far pictures may change, what is matched, what holds it, the schedule.

Pictures of strangers are an extra that not every benchmark has, so `constraint` is the preset's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast, get_args

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods._features import Layers
from study.methods.visual_anchor import VisualAnchor
from study.training.losses import Distance


def space(trial: BaseTrial, default: VisualAnchor) -> VisualAnchor:
    """A proposal around the preset's default."""
    return replace(
        default,
        epsilon=trial.suggest_float("epsilon", 0.02, 1.0, log=True),
        anchor_steps=trial.suggest_int("anchor_steps", 20, 200, log=True),
        fisher_weight=trial.suggest_float("fisher_weight", 1.0, 1e4, log=True) if default.fisher_weight else 0.0,
        layers=cast(Layers, trial.suggest_categorical("layers", get_args(Layers))),
        distance=cast(Distance, trial.suggest_categorical("distance", get_args(Distance))),
        schedule=schedule(trial, default.schedule),
    )
