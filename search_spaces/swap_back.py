"""What is searched for swap-back: which of the public parts are put back, and whether the head is."""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces._parts import parts
from study.attacks.swap_back import PUBLIC, SwapBack


def space(trial: BaseTrial, default: SwapBack) -> SwapBack:
    """A proposal around the preset's default: who puts the head alone back keeps to the head."""
    alone = not default.parts
    return replace(
        default,
        parts=parts(trial, "parts", among=PUBLIC, none=alone),
        head=default.head if alone else trial.suggest_categorical("head", [False, True]),
    )
