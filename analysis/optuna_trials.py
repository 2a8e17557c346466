"""The trials of a search as Optuna's own, for its importances, its storage and its dashboard.

Optuna is imported once it is used: a report of few trials does without.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.searched import Choices, Domain, Searched
from study.metrics.objectives import ROBUST_DIRECTIONS

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

STATES = {"complete": "COMPLETE", "collapsed": "PRUNED", "stopped": "PRUNED", "unfinished": "RUNNING"}
"""Optuna's name for the state of a trial; what is not listed here, such as diverged, is a failure."""


def optuna_trial(
    one: Searched, at: int, objectives: Sequence[str], attributes: Mapping[str, Any] | None = None
) -> FrozenTrial:
    """The proposal of a line of `one.trials`, with the values of a complete trial and whatever is to be known of it."""
    import optuna

    line, params = one.trials.iloc[at], dict(one.params[at])
    state = optuna.trial.TrialState[STATES.get(str(line["state"]), "FAIL")]
    if state == optuna.trial.TrialState.COMPLETE and any(pd.isna(line[name]) for name in objectives):
        state = optuna.trial.TrialState.FAIL  # an objective of it is missing, such as that of an attack that failed
    complete = state == optuna.trial.TrialState.COMPLETE
    return optuna.create_trial(
        state=state,
        params=params,
        distributions={name: _distribution(one.space.get(name, Choices((value,)))) for name, value in params.items()},
        values=[float(line[name]) for name in objectives] if complete else None,
        user_attrs=dict(attributes or {}),
    )


def directions(objectives: Sequence[str]) -> list[StudyDirection]:
    """Which way each objective is better."""
    from optuna.study import StudyDirection

    return [StudyDirection[ROBUST_DIRECTIONS[name].upper()] for name in objectives]


def _distribution(domain: Domain) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.choices)
    if domain.whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's log, and its warnings such as of experimental features."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
