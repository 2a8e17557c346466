"""What is searched for MANU: how many neurons die, among which layers, and what counts as active.

The share goes beyond the published 2, 5 and 10 %: in a small model these do little.
"""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from study.methods.manu import MANU


def space(trial: BaseTrial, default: MANU) -> MANU:
    """A proposal around the preset's default."""
    return replace(
        default,
        share=trial.suggest_float("share", 0.005, 0.3, log=True),
        last_layers=trial.suggest_categorical("last_layers", [0, 1, 3]),
        active_above=trial.suggest_float("active_above", 0.01, 1.0, log=True),
    )
