"""What is searched for quantization: the format, how many weights share a scale, which parts, and the head."""

from __future__ import annotations

from dataclasses import replace
from typing import cast, get_args

from optuna.trial import BaseTrial

from search_spaces._parts import parts
from study.attacks.quantization import Quantization
from study.model.quantization import Format


def space(trial: BaseTrial, default: Quantization) -> Quantization:
    """A proposal around the preset's default."""
    return replace(
        default,
        format=cast(Format, trial.suggest_categorical("format", get_args(Format))),
        group_size=trial.suggest_categorical("group_size", [0, 32, 128]),
        parts=parts(trial, "parts"),
        head=trial.suggest_categorical("head", [False, True]),
    )
