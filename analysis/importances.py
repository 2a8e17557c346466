"""How much each hyper-parameter matters: PED-ANOVA (Watanabe, Bansal & Hutter 2023), as Optuna has it.

It compares how the values of a hyper-parameter are distributed among the best trials and among all of them. It says
where the search found its best trials, not what changing one value would do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from analysis.optuna_trials import directions, optuna_trial, quiet
from analysis.searched import Searched

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

QUARTER = 0.25
"""The share of the trials that are the good ones: what makes a trial one of them, and what matters among them."""
BEST = 0.1
"""The share that are the best ones among the good, as in the paper, where that is at least `TOP`."""
TOP = 5
"""Trials that are good, or best, at least: with fewer the result is unstable, says Optuna's documentation."""
FEWEST = int(TOP / QUARTER)
"""Trials with a result below which there is no importance."""
FEWEST_WITHIN = 2 * FEWEST
"""The same within the best quarter: the best five are half of it then."""
SHUFFLES = 19
"""Random orders of the trials. What matters more than any hyper-parameter in all of them does so by chance in one case
of twenty."""
COLUMNS = ["name", "front", "distance", "within", "beyond_chance"]


def importances(one: Searched, objectives: Sequence[str]) -> pd.DataFrame:
    """One line for each hyper-parameter, the most important for the distance first; each column adds up to 1.

    A column for each objective, one for reaching the Pareto front, one for the distance to the ideal point, and one
    for the distance within the best quarter, NaN below `FEWEST_WITHIN` trials. No line below `FEWEST` trials.
    """
    columns = ["name", *objectives, *COLUMNS[1:]]
    scored = one.scored
    if len(scored) < FEWEST or not one.space:
        return pd.DataFrame(columns=columns)
    study = _study(one, list(scored.index), objectives)
    costs: dict[str, Sequence[float] | None] = {
        **{name: scored[name].mul(-1.0 if name == "utility" else 1.0).tolist() for name in objectives},
        "front": None,
        "distance": scored["distance"].tolist(),
    }
    raw = {name: _evaluated(study, costs[name]) for name in costs}
    found = {name: _shares(values) for name, values in raw.items()}
    if len(scored) >= FEWEST_WITHIN:
        best = max(BEST, TOP / len(scored))
        found["within"] = _shares(_evaluated(study, costs["distance"], best, QUARTER))
    chance = _by_chance(study, scored["distance"].tolist())
    lines = [
        {"name": name, **{key: values.get(name) for key, values in found.items()}, "beyond_chance": value > chance}
        for name, value in raw["distance"].items()
    ]
    return pd.DataFrame(lines, columns=columns)


def _study(one: Searched, scored: Sequence[int], objectives: Sequence[str]) -> Study:
    """The trials with a result; hyper-parameters that are set are none."""
    import optuna

    searched = [{name: v for name, v in values.items() if name in one.space} for values in one.params]
    with quiet():
        study = optuna.create_study(directions=directions(objectives))
        study.add_trials([optuna_trial(replace(one, params=searched), at, objectives) for at in scored])
    return study


def _evaluated(
    study: Study, costs: Sequence[float] | None, share: float = QUARTER, region: float = 1.0
) -> dict[str, float]:
    """The importance of each hyper-parameter for costs that are given by trial, or for the front of the objectives."""
    from optuna.importance import PedAnovaImportanceEvaluator

    def cost(trial: FrozenTrial) -> float:
        assert costs is not None
        return costs[trial.number]

    evaluator = PedAnovaImportanceEvaluator(target_quantile=share, region_quantile=region)
    with quiet():
        return evaluator.evaluate(study, target=None if costs is None else cost)


def _by_chance(study: Study, distances: Sequence[float]) -> float:
    """The largest importance of any hyper-parameter when the distances are dealt to the trials at random."""
    dealt = [random.Random(seed).sample(distances, len(distances)) for seed in range(SHUFFLES)]
    return max(value for costs in dealt for value in _evaluated(study, costs).values())


def _shares(found: dict[str, float]) -> dict[str, float]:
    total = sum(found.values())
    return {name: value / total if total > 0 else 0.0 for name, value in found.items()}
