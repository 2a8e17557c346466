"""How a search draws its proposals, from which trial on their results are modelled, and how few stand for many.

The engine draws so, the plan announces it, and the analysis looks for what the search learned from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from study.core.terms import Model, SamplerName

COVERED = 48
"""Results of a method at a ratio before which `auto` draws from a Sobol sequence: in replayed searches
(`tests/cost/search_replay.py`) no model led to a better winner with as many, and longer ones were not tried. Those that
an earlier study tells count, too: with few of them a model led to worse winners (`tests/cost/warm_replay.py`)."""
STARTUP = 6
"""Trials before TPE or a Gaussian process that is asked for by name, and at least before `auto` models results. With 4,
too, TPE was tried there."""
POPULATION = 12
"""Of NSGA-II: the trials of its first generation, which are random."""


def modelled_from(sampler: SamplerName, startup: int = 0, priors: int = 0) -> int | None:
    """The number of trials of a method at a ratio after which results are modelled; None if they never are.

    `startup` is the setting `startup_trials`, 0 where it is left to the sampler; `priors` is the number of trials of an
    earlier study that the sampler is told of, which `auto` counts among its own.
    """
    if sampler in ("sobol", "random"):
        return None
    if sampler == "nsga2":
        return POPULATION
    first = startup or (COVERED if sampler == "auto" else STARTUP)
    return max(min(first, STARTUP), first - priors) if sampler == "auto" else first


def model_for(sampler: SamplerName, earlier: int, startup: int = 0, priors: int = 0) -> Model:
    """What draws a proposal after so many earlier ones, which may be open.

    Before results are modelled `auto` covers the space with a Sobol sequence, while TPE and Gaussian processes begin
    with random trials, as they do in Optuna. NSGA-II draws its first generation itself.
    """
    first = modelled_from(sampler, startup, priors)
    if sampler == "auto":
        return "sobol" if first is None or earlier < first else "tpe"
    if sampler in ("tpe", "gp") and first is not None and earlier < first:
        return "random"
    return sampler


Member = TypeVar("Member")


def spaced(members: Sequence[Member], most: int) -> list[Member]:
    """At most so many of a list, evenly spaced."""
    count = min(most, len(members))
    return [members[i * len(members) // count] for i in range(count)]
