"""What an attacker who relearns searches: how fast, how long, on which parts, with what adapters.

The default is the budget: no proposal takes more steps or is given more than it. Learning rates span three decades
around it, since a rate that is too low makes every defence look good. Who starts with adapters keeps to adapters: all
weights of a large model may not fit.
"""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces._parts import parts
from study.attacks.relearning import Relearning

DECADES = 1.5
LEAST = 4  # a share may fall to a quarter of the default's


def space(trial: BaseTrial, default: Relearning) -> Relearning:
    """A proposal around the preset's default."""
    rate, steps = default.schedule.learning_rate, default.schedule.steps
    schedule = replace(
        default.schedule,
        learning_rate=trial.suggest_float("learning_rate", rate / 10**DECADES, rate * 10**DECADES, log=True),
        steps=trial.suggest_int("steps", max(1, steps // 4), steps, log=True),
        lora_rank=trial.suggest_categorical("lora_rank", [4, 16] if default.schedule.lora_rank else [0, 4, 16]),
    )
    return replace(
        default,
        people=trial.suggest_float("people", default.people / LEAST, default.people),
        facts=trial.suggest_float("facts", default.facts / LEAST, default.facts),
        trains=parts(trial, "trains"),
        schedule=schedule,
    )
