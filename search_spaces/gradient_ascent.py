"""What is searched for gradient ascent: how fast and how long."""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces import schedule
from study.methods.gradient_ascent import GradientAscent


def space(trial: BaseTrial, default: GradientAscent) -> GradientAscent:
    """A proposal around the preset's default."""
    return replace(default, schedule=schedule(trial, default.schedule))
