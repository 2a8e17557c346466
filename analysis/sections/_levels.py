"""What is known of each person at every step of an attack, for every seed of a model."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study.metrics.intervals import Block, Estimate, Values, estimate

AXES = ["person", "seed", "step"]
COLUMNS = ("score", "probability")
Known = tuple[Values, pd.Index]
"""Values of people (the first axis), and who they are."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Means over the questions about each person, of shape (people, seeds, steps), by the column of rows.

    The first step is the model before the attack. NaN where nothing was asked, as where a seed was not taken to a step.
    """

    people: pd.Index
    steps: tuple[int, ...]
    values: dict[str, Values]
    judged: str
    """The column that is judged: the probability of the right option, or accuracy where an attack gives none."""
    questions: int

    @cached_property
    def taken(self) -> NDArray[np.bool_]:
        """Whether each seed was taken to each step, of shape (seeds, steps)."""
        return np.asarray(~np.isnan(self.values["score"]).all(axis=0))

    def at(self, step: int) -> Values:
        """Accuracy at one step, of shape (people, seeds), of the seeds that were taken to it."""
        place = self.steps.index(step)
        found = self.values["score"][:, self.taken[:, place], place]
        return found[~np.isnan(found).any(axis=1)]

    def ends(self, step: int | None, column: str) -> Known:
        """Levels before and after, of shape (people, seeds, 2), of the seeds that were taken to a step.

        Without a step each counts at its own last one. People who were not asked at both ends are out.
        """
        last = len(self.steps) - 1 - self.taken[:, ::-1].argmax(axis=1)
        there = np.arange(len(last)) if step is None else np.flatnonzero(self.taken[:, self.steps.index(step)])
        after = last[there] if step is None else self.steps.index(step)
        both = np.stack([self.values[column][:, there, 0], self.values[column][:, there, after]], axis=-1)
        known = np.flatnonzero(~np.isnan(both).any(axis=(1, 2)))
        return both[known], self.people[known]


def levels(rows: pd.DataFrame, groups: Collection[str]) -> Levels | None:
    """The levels of rows with a `seed`, on some groups of questions; none where there are none."""
    mine = rows[rows["held_out"].isin(groups)]
    if mine.empty:
        return None
    places, (people, _, steps) = zip(*(pd.factorize(mine[axis], sort=True) for axis in AXES), strict=True)
    values = {column: _means(mine[column].to_numpy(dtype=float), places) for column in COLUMNS}
    judged = "score" if mine["probability"].isna().any() else "probability"
    return Levels(people, tuple(map(int, steps)), values, judged, mine["question"].nunique())


def _means(values: Values, places: Sequence[NDArray[np.intp]]) -> Values:
    """The mean of the values at each place, of which each axis is given by itself; NaN where there is none."""
    known = ~np.isnan(values)
    shape = tuple(int(axis.max()) + 1 for axis in places)
    flat = np.ravel_multi_index(tuple(axis[known] for axis in places), shape)
    sums, counts = (np.bincount(flat, weights, math.prod(shape)) for weights in (values[known], None))
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a place without a value
        return np.asarray(sums / counts).reshape(shape)


def paired(*found: Known) -> list[Values]:
    """The values of the people that all have, in the same order."""
    common = found[0][1]
    for _, people in found[1:]:
        common = common.intersection(people, sort=None)
    return [values[people.get_indexer(common)] for values, people in found]


def gain(values: Sequence[Values]) -> float:
    """The mean of after less before, of the first of some models."""
    return float((values[0][..., 1] - values[0][..., 0]).mean())


def gain_of(values: Values, seed: str) -> Estimate:
    """The gain of one model, with its spread; `seed` names its seeds."""
    return estimate(lambda v: float(v[0].mean()), [_gains(values, seed)], ["people"], [seed])


def above_control(own: Known, control: Known, seeds: Sequence[str]) -> Estimate:
    """The gain of a model less that of its control, paired by person; `seeds` names those of the two."""
    blocks = [_gains(values, seed) for values, seed in zip(paired(own, control), seeds, strict=True)]
    return estimate(lambda v: float(v[0].mean()) - float(v[1].mean()), blocks, ["people"], seeds)


def _gains(values: Values, seed: str) -> Block:
    """After less before of each person and seed, taken once and not anew for everybody who is left out."""
    return Block(values[..., 1] - values[..., 0], ("people", seed))
