"""Steps to recovery: how long an attack takes until half of what was forgotten is back.

It is the first scored step at which gain above control >= `HALF` * (vanilla before - model before), in probability on
what the attacker was not given (test half), with the interval of `study.metrics.recovery.first_reached` over people and
seeds. An attack that never gets there within its N steps takes more than N. Related, and in the same sense, is the
relearning convergence delay (arXiv 2604.09391), which compares the steps of two models to one level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis import intervals
from analysis.sections import _levels
from analysis.tables import NOTHING
from study.metrics.intervals import Block, Estimate, Interval, Values, estimate, pooled
from study.metrics.verdicts import MARGIN

HALF = 0.5
"""The part of what was forgotten that must be back."""
NOTE = (
    "Step: that of the attack at which it is told, and its last; a number of replies where these are sampled, and of "
    "the change where each stage changes the input in another way. Steps to half: the first scored step at which half "
    "of what was forgotten is back above control, in probability; > where the attack ended before. Only of attacks "
    "whose stages go on from one another."
)
"""What the columns of `steps_columns` mean."""
Halfway = Mapping[int, Estimate]
"""At each step what is back above control, less half of what was forgotten."""


def halfway(
    rows: pd.DataFrame | None, control: pd.DataFrame | None, ceiling: pd.DataFrame | None, seeds: Sequence[str]
) -> Halfway:
    """How far an attack is from half-way at each step that all seeds of the model and of the control were taken to.

    `seeds` names those of the two. Nothing of an attack of one step, without control or vanilla, and where less than
    the margin was forgotten.
    """
    if rows is None or control is None or ceiling is None:
        return {}
    steps = sorted(_steps(rows) & _steps(control))
    known = intervals.table(_levels.end(ceiling, "min"), column := _levels.judged_column(rows))
    found = {
        step: _before_half(rows, control, known, seeds, step, column) for step in (steps if len(steps) > 1 else ())
    }
    return {step: one for step, one in found.items() if one is not None}


def pooled_halves(lines: Sequence[Halfway]) -> list[Halfway]:
    """Those of all lines of a table, with what they tell together of the noise of seeds."""
    together = iter(pooled([one for line in lines for one in line.values()]))
    return [{step: next(together) for step in line} for line in lines]


def steps_columns(raw: pd.DataFrame) -> dict[str, pd.Series[str]]:
    """Two columns of a table: the step that is told and how many there were, and the steps to recovery."""
    names = ["half_back", "half_back_low", "half_back_high"]
    found = [Interval(*map(float, line)) for line in raw[names].itertuples(index=False)]
    told = [NOTHING if pd.isna(step) else f"{step:.0f} of {last:.0f}"
            for step, last in zip(raw["step"], raw["last_step"], strict=True)]  # fmt: skip
    texts = [_text(one, last) for one, last in zip(found, raw["last_step"], strict=True)]
    return {name: pd.Series(column, index=raw.index, dtype=str)
            for name, column in (("step", told), ("steps to half", texts))}  # fmt: skip


def _text(found: Interval, last: float) -> str:
    """`20 [10, 40]`; what was not reached by the last step is `> 40`, alone if that is all that can be said."""
    if math.isnan(found.mean):
        return NOTHING
    value, *bounds = (f"> {last:.0f}" if math.isinf(step) else f"{step:.0f}" for step in found)
    alone = math.isnan(found.low) or math.isinf(found.low)
    return value if alone else f"{value} [{', '.join(bounds)}]"


def _before_half(
    rows: pd.DataFrame, control: pd.DataFrame, known: pd.DataFrame, seeds: Sequence[str], step: int, column: str
) -> Estimate | None:
    (own, people), (other, others) = (_levels.ends(_levels.at_step(part, step), column) for part in (rows, control))
    common = [person for person in people if person in others and person in known.index]
    own, other = own[[people.index(p) for p in common]], other[[others.index(p) for p in common]]
    vanilla = known.loc[common].to_numpy(dtype=float)
    if not common or not vanilla.mean() - own[..., 0].mean() >= MARGIN:
        return None
    blocks = [
        Block(own, ("people", seeds[0], "")),
        Block(other, ("people", seeds[1], "")),
        Block(vanilla, ("people", "")),
    ]
    return estimate(_above_half, blocks, ["people"], seeds)


def _above_half(values: Sequence[Values]) -> float:
    forgotten = values[2].mean() - values[0][..., 0].mean()
    return _levels.gain(values[:1]) - _levels.gain(values[1:]) - HALF * float(forgotten)


def _steps(rows: pd.DataFrame) -> set[int]:
    """The steps after the first that all seeds were taken to, but for those that broke before any was scored."""
    met = [steps for _, mine in rows.groupby("seed") if len(steps := set(mine["step"])) > 1]
    return set.intersection(*met) - {rows["step"].min()} if met else set()
