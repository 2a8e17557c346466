"""Which of Optuna's samplers draws a proposal, from how many results, and in what kind of space."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from study.core.terms import SamplerName
from study.engine.quasi_random import QuasiRandomSampler

POPULATION = 12
"""Of NSGA-II: as many as the startup trials of the default, so that evolution begins where a model would."""
GENERATION = "NSGAIISampler:generation"
"""Where Optuna keeps the generation of a trial, which a study that is rebuilt from disk has to be told."""

Model = Literal["sobol", "tpe", "gp", "random", "nsga2"]


def model_for(asked: SamplerName, earlier: Sequence[FrozenTrial], startup: int, fixed: Collection[str]) -> Model:
    """The sampler of a proposal after so many earlier ones, which may be open.

    `auto` covers the space with a Sobol sequence first. Then it fits Gaussian processes (GP) where all is numbers that
    are always asked for, and tree-structured Parzen estimators (TPE) where there are choices or conditions.
    """
    if asked in ("random", "sobol", "nsga2"):
        return asked  # type: ignore[return-value]  # mypy does not narrow a Literal by `in`
    if len(earlier) < startup:
        return "sobol" if asked == "auto" else "random"
    if asked != "auto":
        return asked
    return "gp" if _numeric([trial.distributions for trial in earlier], fixed) else "tpe"


def _numeric(spaces: Sequence[Mapping[str, BaseDistribution]], fixed: Collection[str]) -> bool:
    """Whether all parameters that are not fixed are numbers, and the same in every trial."""
    free = [{name: one for name, one in space.items() if name not in fixed} for space in spaces]
    choices = any(isinstance(one, CategoricalDistribution) for space in free for one in space.values())
    return not choices and len({frozenset(space) for space in free}) == 1 and bool(free[0])


def build(model: Model, seed: int, sequence: int, point: int, names: Sequence[str]) -> BaseSampler:
    """A sampler for one proposal.

    `seed` is the proposal's own; `sequence` seeds the Sobol sequence that all proposals of a group share, of which this
    is `point`; `names` are the parameters that its earlier points were asked for.
    """
    if model == "sobol":
        return QuasiRandomSampler(point, sequence, names)
    if model == "gp":  # startup is `model_for`'s business
        return GPSampler(seed=seed, n_startup_trials=1)
    if model == "tpe":
        return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=1)
    return NSGAIISampler(seed=seed, population_size=POPULATION) if model == "nsga2" else RandomSampler(seed=seed)


def attributes(place: int) -> dict[str, Any]:
    """What Optuna must know of a trial beside its parameters and values, by its place among those of its group."""
    return {GENERATION: place // POPULATION}
