"""Which of Optuna's samplers draws a proposal, from how many results, and in what kind of space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from study.core.terms import SamplerName

if TYPE_CHECKING:  # stages are imported without Optuna
    from optuna.samplers import BaseSampler

POPULATION = 12
"""Of NSGA-II: as many as the startup trials of the default, so that evolution begins where a model would."""
GENERATION = "NSGAIISampler:generation"
"""Where Optuna keeps the generation of a trial, which a study that is rebuilt from disk has to be told."""

Model = Literal["sobol", "tpe", "gp", "random", "nsga2"]


COVERED = 48
"""Trials of a group that `auto` draws from a Sobol sequence: in replayed searches (`tests/cost/search_replay.py`) no
model led to a better winner with as many, and longer ones were not tried."""
STARTUP = 6
"""Trials before a model that is asked for by name: the fewest with which it was tried there."""


def model_for(asked: SamplerName, earlier: int, startup: int) -> Model:
    """The sampler of a proposal after so many earlier ones of its group, which may be open.

    `startup` is the number of results that a model needs; 0 for `COVERED` or `STARTUP`. Until then `auto` covers the
    space with a Sobol sequence, while `tpe` and `gp` draw at random as they do in Optuna.
    """
    if asked in ("random", "sobol", "nsga2"):
        return asked
    if asked == "auto":
        return "sobol" if earlier < (startup or COVERED) else "tpe"
    return "random" if earlier < (startup or STARTUP) else asked


def build(model: Model, seed: int, sequence: int, point: int, names: Sequence[str]) -> BaseSampler:
    """A sampler for one proposal.

    `seed` is the proposal's own; `sequence` seeds the Sobol sequence that all proposals of a group share, of which this
    is `point`; `names` are the parameters that its earlier points were asked for.
    """
    from optuna.samplers import GPSampler, NSGAIISampler, RandomSampler, TPESampler

    from study.engine.quasi_random import QuasiRandomSampler

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
