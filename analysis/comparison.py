"""Winners beside the references and beside each other: forget gap, utility and distance with intervals, and ties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd

from analysis.study_folder import StudyResults
from study.core.records import TrialRecord
from study.core.terms import Goal, Group
from study.metrics.forget_gap import (
    PEOPLE,
    REFERENCES,
    Term,
    gap,
    gap_estimate,
    gaps,
    known,
    noise_floor,
    scores,
    terms,
)
from study.metrics.formulas import harmonic
from study.metrics.intervals import Block, Estimate, Values, estimate, pooled
from study.metrics.objectives import distance_to_ideal, forget_groups, keep_groups
from study.metrics.scored import Scored


@dataclass(frozen=True)
class Model:
    """The person scores of one model in what must go, and what it knows of everything that must stay."""

    name: str
    forget: Values
    """Of shape (people, seeds, terms)."""
    keep: tuple[Block, ...]
    """For each group that must stay: sums of probabilities and numbers of questions, (people, seeds, 2)."""
    recovery: float = 0.0
    """What the attack of the search brings back, where that is an objective."""

    @property
    def seed(self) -> str:
        """The axis of its seeds."""
        return f"seed of {self.name}"


@dataclass(frozen=True)
class Bench:
    """What the models of one ratio are measured against."""

    terms: list[Term]
    references: Values
    vanilla: tuple[Values, ...]
    """For each group that must stay: sums and numbers, (people, 2)."""
    groups: tuple[Group, ...]


def rows_of(study: StudyResults, members: Sequence[TrialRecord]) -> list[Scored]:
    """The rows of the test half of each seed that was scored on it."""
    found = (study.scored(trial.key, "report") for trial in members)
    return [rows for rows in found if rows is not None]


@lru_cache(maxsize=64)
def bench(study: StudyResults, ratio: int) -> Bench | None:
    """The references and vanilla of a ratio on the test half; None as long as one of them was not scored."""
    vanilla, references = (rows_of(study, study.yardsticks(kind, ratio)) for kind in ("vanilla", "reference"))
    if not vanilla or not references:
        return None
    there: set[Group] = set(zip(vanilla[0].rows["role"], vanilla[0].rows["modality"], strict=True))
    goal: Goal = study.goal
    wanted, kept = terms(references[0], forget_groups(goal, there)), keep_groups(goal, there)
    sums = tuple(_sums(vanilla[:1], group)[:, 0] for group in kept)
    people = _people(references[0].rows, PEOPLE)
    return Bench(wanted, scores(references, wanted, "the reference", people), sums, kept)


@lru_cache(maxsize=256)
def model(study: StudyResults, name: str, keys: tuple[str, ...], ratio: int) -> Model | None:
    """A model on the test half; None if no seed of it was scored."""
    against, runs = bench(study, ratio), rows_of(study, [study.trials[key] for key in keys if key in study.trials])
    if against is None or not runs:
        return None
    seed = f"seed of {name}"
    keep = tuple(Block(_sums(runs, group), (_axis(group[0]), seed, "")) for group in against.groups)
    return Model(name, scores(runs, against.terms, name, _people(runs[0].rows, PEOPLE)), keep)


def floor(study: StudyResults, ratio: int) -> list[float]:
    """The forget gap of each reference of a ratio to the others: the noise floor; empty with one reference."""
    against = bench(study, ratio)
    return noise_floor(against.references) if against else []


def gap_of(found: Model, against: Bench) -> Estimate:
    """The forget gap of a model, with its spread."""
    return gap_estimate(found.forget, against.references, found.seed)


def distance_of(found: Model, against: Bench) -> Estimate:
    """The distance of a model to the ideal point, with its spread."""
    size = len(against.groups)
    blocks = [*_baselines(against), Block(found.forget, (PEOPLE, found.seed, "")), *found.keep]
    return estimate(
        lambda v: _distance(v[1 + size :], v[0], v[1 : 1 + size], found.recovery),
        blocks, _axes(against), [found.seed, REFERENCES],
    )  # fmt: skip


def difference(one: Model, other: Model, against: Bench, measure: Objective = "distance") -> Estimate:
    """How much more of a measure the second model has than the first, paired by person and reference.

    By default how much farther it is from the ideal point.
    """
    value = MEASURES[measure]
    blocks = _baselines(against)
    size = len(against.groups)
    for found in (one, other):
        blocks += [Block(found.forget, (PEOPLE, found.seed, "")), *found.keep]

    def farther(values: Sequence[Values]) -> float:
        references, vanilla, rest = values[0], values[1 : 1 + size], values[1 + size :]
        near, far = (rest[at : at + 1 + size] for at in (0, 1 + size))
        return value(far, references, vanilla, other.recovery) - value(near, references, vanilla, one.recovery)

    return estimate(farther, blocks, _axes(against), [one.seed, other.seed, REFERENCES])


def utility_of(found: Model, against: Bench) -> Estimate:
    """The utility of a model, with its spread."""
    size = len(against.groups)
    return estimate(
        lambda v: _mean_utility(v[size:], v[:size]),
        [*_baselines(against)[1:], *found.keep], sorted({_axis(role) for role, _ in against.groups}), [found.seed],
    )  # fmt: skip


Contender = tuple[str, tuple[str, ...], float]
"""A model of a ratio by name, the keys of its seeds, and its recovery where that is an objective."""


def ties(study: StudyResults, ratio: int, ranked: Sequence[Contender]) -> list[Estimate]:
    """How much farther from the ideal point every model after the first, the nearest, is than the first."""
    return farther(study, ratio, [(ranked[0], other) for other in ranked[1:]])


def farther(study: StudyResults, ratio: int, pairs: Sequence[tuple[Contender, Contender]]) -> list[Estimate]:
    """How much farther from the ideal point the second of each two models is than the first, with 95 % intervals.

    The noise of the models' seeds is that of all together; that of the references nearly cancels in a difference and
    stays as it is. A recovery counts as it was found: it has no spread here. NaN where a model was not scored.
    """
    against = bench(study, ratio)
    if against is None:
        return [Estimate(math.nan) for _ in pairs]

    def scored(name: str, keys: tuple[str, ...], recovery: float) -> Model | None:
        found = model(study, name, keys, ratio)
        return None if found is None else replace(found, recovery=recovery)

    both = [(scored(*near), scored(*far)) for near, far in pairs]
    apart = [
        Estimate(math.nan) if near is None or far is None else difference(near, far, against) for near, far in both
    ]
    return pooled(apart, apart=[REFERENCES])


@lru_cache(maxsize=256)
def known_of(study: StudyResults, keys: tuple[str, ...], ratio: int) -> pd.Series[float]:
    """What a model knows of each person to be forgotten, on the test half: the mean over seeds and terms."""
    against, runs = bench(study, ratio), rows_of(study, [study.trials[key] for key in keys if key in study.trials])
    return known(runs, against.terms) if against and runs else pd.Series(dtype=float)


def most_known(study: StudyResults, keys: Sequence[str], ratio: int) -> tuple[str, float]:
    """The person of whom a model still knows most, and how much."""
    found = known_of(study, tuple(keys), ratio)
    return (str(found.idxmax()), float(found.max())) if len(found) else ("", math.nan)


def _baselines(against: Bench) -> list[Block]:
    """The references, then vanilla on each group that must stay."""
    vanilla = [Block(v, (_axis(group[0]), "")) for v, group in zip(against.vanilla, against.groups, strict=True)]
    return [Block(against.references, (PEOPLE, REFERENCES, "")), *vanilla]


def _axes(against: Bench) -> list[str]:
    """The axes of all people that a distance is about."""
    return sorted({PEOPLE, *(_axis(role) for role, _ in against.groups)})


def _distance(values: Sequence[Values], references: Values, vanilla: Sequence[Values], recovery: float) -> float:
    """The distance to the ideal point, the mean over seeds."""
    both = zip(gaps(values[0], references), _utilities(values[1:], vanilla), strict=True)
    found = [distance_to_ideal(float(apart), used, recovery) for apart, used in both]
    return math.fsum(found) / len(found)


def _gap(values: Sequence[Values], references: Values, vanilla: Sequence[Values], recovery: float) -> float:
    return gap(values[0], references)


def _utility(values: Sequence[Values], references: Values, vanilla: Sequence[Values], recovery: float) -> float:
    return _mean_utility(values[1:], vanilla)


def _mean_utility(keep: Sequence[Values], vanilla: Sequence[Values]) -> float:
    """The utility, the mean over seeds."""
    found = _utilities(keep, vanilla)
    return math.fsum(found) / len(found)


def _utilities(keep: Sequence[Values], vanilla: Sequence[Values]) -> list[float]:
    """The utility of each seed."""
    sums = [mine.sum(axis=0) for mine in keep]
    before = [float(its[:, 0].sum() / its[:, 1].sum()) for its in vanilla]
    return [
        min(1.0, harmonic([min(1.0, float(mine[0] / mine[1]) / its) for mine, its in zip(one, before, strict=True)]))
        for one in zip(*sums, strict=True)
    ]


Objective = Literal["forget_gap", "utility", "distance"]
MEASURES = {"forget_gap": _gap, "utility": _utility, "distance": _distance}


def _axis(role: str) -> str:
    """The people that questions of a role are about: those to be forgotten are asked in several roles."""
    return PEOPLE if role in ("forget", "test", "spared") else f"{role} people"


def _people(rows: pd.DataFrame, axis: str) -> list[str]:
    """All people of an axis, so that its units are the same in every group, whatever each of them is asked there."""
    return sorted(rows.loc[rows["role"].map(_axis) == axis, "person"].unique())


def _sums(runs: Sequence[Scored], group: Group) -> Values:
    """The sum of probabilities and the number of choices of each person and seed, (people, seeds, 2)."""
    people, found = _people(runs[0].rows, _axis(group[0])), []
    for rows in (run.rows for run in runs):
        asked = (rows["role"] == group[0]) & (rows["modality"] == group[1]) & (rows["task"] == "classification")
        sums = rows[asked].groupby("person")["probability"].agg(["sum", "count"])
        found.append(sums.reindex(people, fill_value=0.0).to_numpy(float))
    return np.stack(found, axis=1)
