"""What an attacker who relearns searches: how fast, how long, on which parts, with what adapters, and what beside.

The default is the budget: no proposal takes more steps or larger batches or is given more than it; only retain lessons,
which anybody may have, double the cost of a step where they are mixed in. Learning rates span three decades around the
default's, since a rate that is too low makes every defence look good. The optimizer stays the default's: the rates of
AdamW hardly move a weight under SGD, so half of the proposals would be idle. Who starts with adapters keeps to
adapters: all weights of a large model may not fit. What data the attacker has is not searched, since it
decides what counts as recovered: `relearning:data=benign` is an attack of its own.
"""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from search_spaces._parts import parts
from study.attacks.relearning import Relearning
from study.training.schedule import Schedule

DECADES = 1.5
LEAST = 4  # a share, a batch and the number of steps may fall to a quarter of the default's
MIXED = (0.0, 0.3, 1.0, 3.0)  # weights of the retain lessons: none, less than the data, as much, more
RANKS = (4, 16)
AUGMENTED = (0.0, 0.5)  # shares of the pictures


def space(trial: BaseTrial, default: Relearning) -> Relearning:
    """A proposal around the preset's default."""
    mixed = sorted({*MIXED, default.retain_weight})
    return replace(
        default,
        people=trial.suggest_float("people", default.people / LEAST, default.people),
        facts=trial.suggest_float("facts", default.facts / LEAST, default.facts),
        retain_weight=trial.suggest_categorical("retain_weight", mixed),
        augment=trial.suggest_categorical("augment", sorted({*AUGMENTED, default.augment})),
        trains=parts(trial, "trains"),
        schedule=_schedule(trial, default.schedule),
    )


def _schedule(trial: BaseTrial, default: Schedule) -> Schedule:
    rate, steps, pictures = default.learning_rate, default.steps, default.pictures
    ranks = RANKS if default.lora_rank else (0, *RANKS)
    return replace(
        default,
        learning_rate=trial.suggest_float("learning_rate", rate / 10**DECADES, rate * 10**DECADES, log=True),
        steps=trial.suggest_int("steps", max(1, steps // LEAST), steps, log=True),
        pictures=trial.suggest_int("pictures", max(1, pictures // LEAST), pictures, log=True),
        lora_rank=trial.suggest_categorical("lora_rank", sorted({*ranks, default.lora_rank})),
    )
