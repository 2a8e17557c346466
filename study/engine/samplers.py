"""Optuna's samplers, and what they must know of trials that come from disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from study.core.sampling import POPULATION
from study.core.terms import Model

if TYPE_CHECKING:  # stages are imported without Optuna
    from optuna.samplers import BaseSampler

GENERATION = "NSGAIISampler:generation"
"""Where Optuna keeps the generation of a trial, which a study that is rebuilt from disk has to be told."""


def build(model: Model, seed: int, sequence: int, point: int, names: Sequence[str]) -> BaseSampler:
    """A sampler for one proposal.

    `seed` is the proposal's own; `sequence` seeds the Sobol sequence that all proposals of a group share, of which this
    is `point`; `names` are the parameters that its earlier points were asked for.
    """
    from optuna.samplers import GPSampler, NSGAIISampler, RandomSampler, TPESampler

    from study.engine.quasi_random import QuasiRandomSampler

    if model == "sobol":
        return QuasiRandomSampler(point, sequence, names)
    if model == "gp":  # when models begin is settled in `study.core.sampling`
        return GPSampler(seed=seed, n_startup_trials=1)
    if model == "tpe":
        return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=1)
    return NSGAIISampler(seed=seed, population_size=POPULATION) if model == "nsga2" else RandomSampler(seed=seed)


def attributes(place: int) -> dict[str, Any]:
    """What Optuna must know of a trial beside its parameters and values, by its place among those of its group."""
    return {GENERATION: place // POPULATION}
