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

from analysis.sections._levels import Levels, gain, paired
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


def halfway(own: Levels | None, control: Levels | None, ceiling: Levels | None, seeds: Sequence[str]) -> Halfway:
    """How far an attack is from half-way at each step that all seeds of the model and of the control were taken to.

    `seeds` names those of the two. Nothing of an attack of one step, without control or vanilla, and where less than
    the margin was forgotten.
    """
    if own is None or control is None or ceiling is None:
        return {}
    steps = sorted(_steps(own) & _steps(control))
    found = {step: _before_half(own, control, ceiling, seeds, step) for step in (steps if len(steps) > 1 else ())}
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


def _before_half(own: Levels, control: Levels, ceiling: Levels, seeds: Sequence[str], step: int) -> Estimate | None:
    before, people = ceiling.ends(None, own.judged)
    both = [part.ends(step, own.judged) for part in (own, control)]
    mine, other, vanilla = paired(*both, (before[..., 0], people))
    if not len(mine) or not vanilla.mean() - mine[..., 0].mean() >= MARGIN:
        return None
    blocks = [Block(mine, ("people", seeds[0], "")), Block(other, ("people", seeds[1], "")),
              Block(vanilla, ("people", ""))]  # fmt: skip
    return estimate(_above_half, blocks, ["people"], seeds)


def _above_half(values: Sequence[Values]) -> float:
    forgotten = values[2].mean() - values[0][..., 0].mean()
    return gain(values[:1]) - gain(values[1:]) - HALF * float(forgotten)


def _steps(found: Levels) -> set[int]:
    """The steps after the first that all seeds were taken to, but for those that broke before any was scored."""
    taken = found.taken[found.taken[:, 1:].any(axis=1), 1:]
    return {step for step, met in zip(found.steps[1:], taken.T, strict=True) if len(met) and met.all()}
