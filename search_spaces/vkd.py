"""What is searched for VKD: the teacher, what is supervised and how strongly, the schedule; if it is `described`, also
the losses on answers, the mask and what of it is pruned away.

The `reference` teacher is an oracle and is never proposed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast, get_args

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods._features import Layers
from study.methods.vkd import VKD, Neurons, Teacher
from study.training.losses import Distance

THRESHOLDS = (1.0, 1.5, 2.0)  # of the mask: it lets 57, 39 and 28 % of the weights pass in the tiny study
PRUNED = {"described": (0.05, 0.1, 0.2), "features": (0.02, 0.05, 0.1)}
"""Shares of neurons: those that MANU publishes, or larger where they alone may be trained."""


def space(trial: BaseTrial, default: VKD) -> VKD:
    """A proposal around the preset's default, of its variant."""
    teacher = trial.suggest_categorical("teacher", [name for name in get_args(Teacher) if name != "reference"])
    found = replace(
        default,
        teacher=cast(Teacher, teacher),
        layers=cast(Layers, trial.suggest_categorical("layers", get_args(Layers))),
        distance=cast(Distance, trial.suggest_categorical("distance", get_args(Distance))),
        erase_weight=_around(trial, "erase_weight", default.erase_weight, 5),
        keep_weight=trial.suggest_float("keep_weight", 0.5, 20.0, log=True),
        augment=trial.suggest_float("augment", 0.0, 1.0),
        schedule=schedule(trial, default.schedule),
    )
    if default.variant == "described":
        found = _on_answers(trial, _masked(trial, found))
    if "pruned" in (found.teacher, found.neurons):
        found = replace(found, prune=trial.suggest_categorical("prune", PRUNED[found.variant]))
    return found


def _around(trial: BaseTrial, name: str, weight: float, factor: float) -> float:
    """A weight within a factor of the default's; a term that the default leaves out stays out."""
    return trial.suggest_float(name, weight / factor, weight * factor, log=True) if weight else 0.0


def _on_answers(trial: BaseTrial, default: VKD) -> VKD:
    forget = _around(trial, "forget_weight", default.forget_weight, 10)
    return replace(
        default,
        forget_weight=forget,
        beta=trial.suggest_float("beta", 0.05, 2.0, log=True) if forget else default.beta,
        retain_weight=_around(trial, "retain_weight", default.retain_weight, 10),
    )


def _masked(trial: BaseTrial, default: VKD) -> VKD:
    """Which weights are trained; with adapters there is no such choice."""
    if default.schedule.lora_rank:
        return default
    thresholds = sorted({*THRESHOLDS, default.saliency_threshold})
    return replace(
        default,
        saliency_threshold=trial.suggest_categorical("saliency_threshold", thresholds),
        neurons=cast(Neurons, trial.suggest_categorical("neurons", get_args(Neurons))),
    )
