"""One search space a method: `space(trial, default)` suggests hyper-parameters around a preset's default.

A parameter is named after the field it sets, so that a default can be proposed and an old trial replayed. Spaces are
Python: a misspelt field fails the type checker.
"""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from study.training import Schedule


def schedule(trial: BaseTrial, default: Schedule) -> Schedule:
    """Learning rate within a factor of four of the default, log-uniform; steps from half of the default to double."""
    rate, steps = default.learning_rate, default.steps
    return replace(
        default,
        learning_rate=trial.suggest_float("learning_rate", rate / 4, rate * 4, log=True),
        steps=trial.suggest_int("steps", max(1, steps // 2), steps * 2, log=True),
    )
