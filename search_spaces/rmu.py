"""What is searched for RMU: the layer, how long the noise is, the weight of the retain states and the schedule.

Open-MMUnlearning's grid is a coefficient of 1, 10, 100 at layer 6, 11, 16 of 32.
"""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods.rmu import RMU


def space(trial: BaseTrial, default: RMU) -> RMU:
    """A proposal around the preset's default.

    Layers from the first to the default's are proposed, or from the default's to the last where it counts from the
    end: a model that has the default's layer has all of these.
    """
    first, last = (0, default.layer) if default.layer >= 0 else (default.layer, -1)
    return replace(
        default,
        layer=trial.suggest_int("layer", first, last),
        coefficient=trial.suggest_float("coefficient", 0.5, 200.0, log=True),
        alpha=trial.suggest_float("alpha", 0.3, 30.0, log=True),
        schedule=schedule(trial, default.schedule),
    )
