"""What is searched for interpolation with the base model: which parts are moved. How far is scored along the way."""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces._parts import parts
from study.attacks.interpolation import Interpolation


def space(trial: BaseTrial, default: Interpolation) -> Interpolation:
    """A proposal around the preset's default."""
    return replace(default, parts=parts(trial, "parts"))
