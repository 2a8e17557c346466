"""What is searched for VKD: the teacher, what is supervised and how strongly, the saliency threshold, the schedule.

The `reference` teacher is an oracle and is never proposed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast, get_args

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods._features import Layers
from study.methods.vkd import VKD, Teacher
from study.training.losses import Distance


def space(trial: BaseTrial, default: VKD) -> VKD:
    """A proposal around the preset's default."""
    teacher = trial.suggest_categorical("teacher", [name for name in get_args(Teacher) if name != "reference"])
    forget_weight = trial.suggest_categorical("forget_weight", [0.0, 0.03, 0.3])
    return replace(
        default,
        teacher=cast(Teacher, teacher),
        layers=cast(Layers, trial.suggest_categorical("layers", get_args(Layers))),
        distance=cast(Distance, trial.suggest_categorical("distance", get_args(Distance))),
        erase_weight=trial.suggest_float("erase_weight", 0.2, 5.0, log=True),
        keep_weight=trial.suggest_float("keep_weight", 0.5, 20.0, log=True),
        forget_weight=forget_weight,
        beta=trial.suggest_float("beta", 0.05, 2.0, log=True) if forget_weight else default.beta,
        retain_weight=trial.suggest_categorical("retain_weight", [0.0, 0.1, 1.0]),
        saliency_threshold=0.0  # a mask selects weights, which adapters do not have
        if default.schedule.lora_rank
        else trial.suggest_categorical("saliency_threshold", [0.0, 0.1, 0.5, 1.0]),
        prune=trial.suggest_categorical("prune", [0.02, 0.05, 0.1]) if teacher == "pruned" else default.prune,
        augment=trial.suggest_float("augment", 0.0, 1.0),
        schedule=schedule(trial, default.schedule),
    )
