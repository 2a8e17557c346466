"""What is searched for noise on pictures: how much of it, in which steps, and how many.

The default is the budget: no proposal may be seen more easily, takes more steps or is given more than it. A step is
never larger than the smallest bound that is proposed, so that every pair of the two is a possible one.
"""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import BaseTrial

from study.attacks.adversarial_image import AdversarialImage

LEAST = 4  # bound, steps and shares may fall to a quarter of the default's


def space(trial: BaseTrial, default: AdversarialImage) -> AdversarialImage:
    """A proposal around the preset's default."""
    smallest = max(default.step, default.epsilon // LEAST)
    found = replace(
        default,
        epsilon=trial.suggest_int("epsilon", smallest, default.epsilon),
        step=trial.suggest_int("step", 1, smallest),
        steps=trial.suggest_int("steps", max(1, default.steps // LEAST), default.steps, log=True),
        facts=trial.suggest_float("facts", default.facts / LEAST, default.facts),
    )
    if default.scope == "per_image":  # which people are given does not matter to it
        return found
    return replace(found, people=trial.suggest_float("people", default.people / LEAST, default.people))
