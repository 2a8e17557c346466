"""What is searched for interpolation with the base model: which parts are moved, and how far.

An attack counts at the stage that brings the most back, so every proposal but the default itself is one stage.
"""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces._parts import parts
from study.attacks.interpolation import Interpolation

PERCENTS = (5, 10, 20, 35, 50, 75, 100, 125)


def space(trial: BaseTrial, default: Interpolation) -> Interpolation:
    """A proposal around the preset's default."""
    own = "+".join(map(str, default.percents))
    others = [str(percent) for percent in PERCENTS if percent != default.percents[-1]]
    chosen = trial.suggest_categorical("percents", [own, *others])
    return replace(default, parts=parts(trial, "parts"), percents=tuple(map(int, chosen.split("+"))))
