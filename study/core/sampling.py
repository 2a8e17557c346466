"""How a search draws its proposals, and from which trial on their results are modelled.

The engine draws so, the plan announces it, and the analysis looks for what the search learned from there on.
"""

from __future__ import annotations

from study.core.terms import Model, SamplerName

COVERED = 48
"""Trials of a method at a ratio that `auto` draws from a Sobol sequence: in replayed searches
(`tests/cost/search_replay.py`) no model led to a better winner with as many, and longer ones were not tried."""
STARTUP = 6
"""Trials before TPE or a Gaussian process that is asked for by name, and before `auto` models results that an earlier
study predicts. With 4, too, TPE was tried there."""
POPULATION = 12
"""Of NSGA-II: the trials of its first generation, which are random."""


def modelled_from(sampler: SamplerName, startup: int = 0, *, primed: bool = False) -> int | None:
    """The number of trials of a method at a ratio after which results are modelled; None if they never are.

    `startup` is the setting `startup_trials`, 0 where it is left to the sampler; `primed` whether it has been told of
    trials of an earlier study.
    """
    if sampler in ("sobol", "random"):
        return None
    if sampler == "nsga2":
        return POPULATION
    return startup or (COVERED if sampler == "auto" and not primed else STARTUP)


def model_for(sampler: SamplerName, earlier: int, startup: int = 0, *, primed: bool = False) -> Model:
    """What draws a proposal after so many earlier ones, which may be open.

    Before results are modelled `auto` covers the space with a Sobol sequence, while TPE and Gaussian processes begin
    with random trials, as they do in Optuna. NSGA-II draws its first generation itself.
    """
    if sampler in ("sobol", "random", "nsga2"):
        return sampler
    first = modelled_from(sampler, startup, primed=primed)
    assert first is not None
    if sampler == "auto":
        return "sobol" if earlier < first else "tpe"
    return "random" if earlier < first else sampler
