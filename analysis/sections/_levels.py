"""What is known of each person before an attack and at one of its steps, for every seed of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd

from analysis import intervals
from study.metrics.intervals import Block, Estimate, Values, estimate


def of(rows: pd.DataFrame | None, groups: Sequence[str]) -> pd.DataFrame | None:
    """The rows on some groups of questions; none where there are none."""
    mine = rows[rows["held_out"].isin(groups)] if rows is not None else None
    return mine if mine is not None and len(mine) else None


def at_step(rows: pd.DataFrame, step: int | None) -> pd.DataFrame:
    """The rows before the attack and at one step, of the seeds that were taken to it; without a step all rows."""
    if step is None:
        return rows
    seeds = set(rows.loc[rows["step"] == step, "seed"])
    return rows[rows["seed"].isin(seeds) & rows["step"].isin([rows["step"].min(), step])]


def end(rows: pd.DataFrame, which: Literal["min", "max"]) -> pd.DataFrame:
    """The rows at the first (`min`) or last (`max`) step of each seed."""
    return rows[rows["step"] == rows.groupby("seed")["step"].transform(which)]


def ends(rows: pd.DataFrame, column: str) -> tuple[Values, list[str]]:
    """Levels before and after, of shape (people, seeds, 2), and the people."""
    before, after = intervals.table(end(rows, "min"), column), intervals.table(end(rows, "max"), column)
    common = before.index.intersection(after.index)
    both = pd.concat([before.loc[common], after.loc[common]], axis=1).to_numpy(dtype=float)
    return both.reshape(len(common), 2, -1).transpose(0, 2, 1), list(common)


def judged_column(rows: pd.DataFrame) -> str:
    """The probability of the right option, or accuracy where an attack gives no probability."""
    return "score" if rows["probability"].isna().any() else "probability"


def gain(values: Sequence[Values]) -> float:
    """The mean of after less before, of the first of some models."""
    return float((values[0][..., 1] - values[0][..., 0]).mean())


def above_control(rows: pd.DataFrame, control: pd.DataFrame, column: str, seeds: Sequence[str]) -> Estimate:
    """The gain of a model less that of its control, paired by person; `seeds` names those of the two."""
    (own, people), (other, known) = ends(rows, column), ends(control, column)
    common = sorted(set(people) & set(known))
    own, other = own[[people.index(p) for p in common]], other[[known.index(p) for p in common]]
    blocks = [Block(values, ("people", seed, "")) for values, seed in zip((own, other), seeds, strict=True)]
    return estimate(lambda v: gain(v[:1]) - gain(v[1:]), blocks, ["people"], seeds)
