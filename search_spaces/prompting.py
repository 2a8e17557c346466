"""What is searched for prompting: which instruction, and how often it is repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from optuna.trial import BaseTrial

from study.methods.prompting import Prompting, Wording


def space(trial: BaseTrial, default: Prompting) -> Prompting:
    """A proposal among eight: the space is finite, so a study may meet one twice and then runs it once."""
    return replace(
        default,
        wording=trial.suggest_categorical("wording", get_args(Wording)),
        repeats=trial.suggest_int("repeats", 1, 2),
    )
