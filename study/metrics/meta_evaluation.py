"""Meta-evaluation: how well a metric tells models that know from models that do not, and what fools it.

A pool contains models that were taught what is to be forgotten (vanilla) and models that were not (the reference), all
scored as they are, `quantized`, and fine-tuned on something else (`relearned`). Each metric gives one value for every
unit, that is, for one person as one model knows them:

- AUC (faithfulness): of all pairs of a unit that knows and one of the same forget ratio that does not, the fraction
  that the metric orders as it declares, ties as half (Mann & Whitney 1947). 1 separates perfectly, 0.5 says nothing,
  below 0.5 the metric is the wrong way round here: the order is fixed beforehand and never reversed.
- Change when quantized (robustness): the fraction of the gap between knowing and not knowing that a model that knows
  loses by quantization of its weights: (plain - quantized) / gap.
- Change when relearned (robustness): the fraction of the gap that a model that does not know closes by learning about
  other people: (relearned - plain) / gap, on the questions whose answers it was not given.

Both changes are 0 for a metric that is not fooled and 1 for one that takes a model of one kind for one of the other.
They are NaN where there is no gap to compare with: fewer than two people, or a gap against the declared order or of
less than `SMALLEST_EFFECT` standard deviations of the people. Quantization does destroy and relearning does teach a
little, which affects the changes of all metrics: compare them with each other, not with 0 alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study.metrics.registry import METRICS, NEARER, Comparison, Mean, Whole

State = Literal["plain", "quantized", "relearned"]
AnyMetric = Mean | Comparison | Whole
Values = NDArray[np.float64]

SMALLEST_EFFECT = 0.2
"""Minimum gap of which a change is a fraction, in standard deviations over people: a small effect (Cohen 1988)."""
DIGITS = 12
"""Decimals compared, so that values that are equal but for rounding tie."""
UNIT = ["ratio", "seed", "knows", "person"]
"""The columns that identify a unit."""
CHECKED: tuple[AnyMetric, ...] = tuple(metric for metric in METRICS if metric.where != "kept")
"""The metrics on what is to be forgotten."""


@dataclass(frozen=True, eq=False)
class Member:
    """One model of the pool: its forget ratio, whether it was taught what is to be forgotten, and its rows."""

    ratio: int
    seed: int
    knows: bool
    rows: Mapping[State, pd.DataFrame]


class Orders(NamedTuple):
    """Pairs of units by their people, (people that know, people that do not): their number, and those in order."""

    ordered: Values
    pairs: Values

    def auc(self, weights: Values) -> Values:
        """The AUC with people weighted, (n, people) to (n,): a person counts on both sides. NaN without a pair."""
        ordered, pairs = (np.einsum("np,pq,nq->n", weights, part, weights) for part in (self.ordered, self.pairs))
        return np.asarray(ordered / np.where(pairs > 0, pairs, np.nan))


def needs_reference(metric: AnyMetric) -> bool:
    """Whether the metric compares with a reference, which is then not a unit itself: its distance would be 0."""
    return isinstance(metric, Comparison) or metric.better == NEARER


def sign(metric: AnyMetric) -> int:
    """1 if knowing should give the larger value, else -1, by the direction that means forgetting.

    For a metric that should be close to the reference's, the value is its distance from that.
    """
    return -1 if metric.better == "higher" else 1


def units(metric: AnyMetric, pool: Sequence[Member], state: State = "plain") -> pd.DataFrame:
    """One line for each unit that has a value: `ratio`, `seed`, `knows`, `person`, `value`.

    With a metric that needs a reference, the first one of each ratio is what is compared with.
    """
    bars = {m.ratio: m for m in sorted(pool, key=lambda m: -m.seed) if not m.knows}
    lines: list[tuple[object, ...]] = []
    for member in pool:
        bar = bars.get(member.ratio)
        if state not in member.rows or (needs_reference(metric) and (bar is None or member is bar)):
            continue
        values = _by_person(metric, member.rows[state], None if bar is None else bar.rows["plain"]).round(DIGITS)
        lines += [(member.ratio, member.seed, member.knows, person, value) for person, value in values.items()]
    return pd.DataFrame(lines, columns=[*UNIT, "value"])


def orders(found: pd.DataFrame, direction: int) -> Orders:
    """All pairs of `units`; `direction` is the `sign` of their metric. People are in the order of their names."""
    people = pd.Index(sorted(found["person"].unique()))
    ordered, pairs = np.zeros((2, len(people), len(people)))
    for _, group in found.groupby("ratio"):
        sides = [group[group["knows"] == side] for side in (True, False)]
        at = np.ix_(*(people.get_indexer(side["person"]) for side in sides))
        mine, its = (direction * side["value"].to_numpy(dtype=float) for side in sides)
        np.add.at(ordered, at, (mine[:, None] > its) + (mine[:, None] == its) / 2.0)
        np.add.at(pairs, at, 1.0)
    return Orders(ordered, pairs)


def auc_of_models(metric: AnyMetric, pool: Sequence[Member]) -> float:
    """The AUC with whole models as units. NaN with fewer than two of each kind at a ratio."""
    whole = [replace(m, rows={"plain": m.rows["plain"].assign(person="all")}) for m in pool if "plain" in m.rows]
    found = units(metric, whole)
    sizes = found.groupby(["ratio", "knows"]).size()
    if not len(sizes) or len(sizes) < 2 * len({m.ratio for m in pool}) or sizes.min() < 2:
        return math.nan
    return float(orders(found, sign(metric)).auc(np.ones((1, 1)))[0])


def moves(metric: AnyMetric, plain: pd.DataFrame, after: pd.DataFrame, state: State) -> pd.DataFrame:
    """For each person, how far models of one kind `moved` towards the other, and the `gap` between the kinds.

    From the `units` of both states, relearned ones only of `held_out`; what has no value in both is left out. Models
    that know move by being quantized, models that do not by being relearned. Nobody where there is no gap.
    """
    mover = state == "quantized"
    plain = plain.merge(after[UNIT])
    people = pd.DataFrame({
        "knowing": _means(plain, True), "not_knowing": _means(plain, False),
        "before": _means(plain, mover), "after": _means(after.merge(plain[UNIT]), mover),
    }).dropna()  # fmt: skip
    if not effect(people["knowing"], people["not_knowing"]) * sign(metric) >= SMALLEST_EFFECT:
        people = people.iloc[:0]
    moved = (people["before"] - people["after"]) * (1 if mover else -1)
    return pd.DataFrame({"moved": moved, "gap": people["knowing"] - people["not_knowing"]})


def change(means: Values) -> Values:
    """The fraction of the gap that moved, from means over people (n, 2) as of `moves`; NaN where there is no gap."""
    return np.asarray(means[:, 0] / np.where(means[:, 1] == 0.0, np.nan, means[:, 1]))


def effect(first: pd.Series[float], second: pd.Series[float]) -> float:
    """Cohen's d of two samples of one size: difference of means over the pooled standard deviation.

    Infinite where neither varies and the means differ; NaN for equal constants and fewer than two values.
    """
    gap, spread = float(first.mean() - second.mean()), math.sqrt((first.var() + second.var()) / 2)
    if spread > 0.0 or math.isnan(spread):
        return gap / spread
    return math.copysign(math.inf, gap) if gap else math.nan


def held_out(pool: Sequence[Member]) -> list[Member]:
    """The members that were relearned, with only the questions that count in their rows: those about people of whom
    the relearning gave nothing or, if it gave something of all, those whose answers it did not give."""
    found = []
    for member in pool:
        marked = member.rows.get("relearned", pd.DataFrame({"held_out": [], "question": []}))
        groups = [set(marked.loc[marked["held_out"] == name, "question"]) for name in ("person", "fact")]
        if asked := next(filter(None, groups), None):
            kept = {state: rows[rows["question"].isin(asked)] for state, rows in member.rows.items()}
            found.append(replace(member, rows=kept))
    return found


def _means(found: pd.DataFrame, knows: bool) -> pd.Series[float]:
    """The mean of each person over the models of one kind."""
    return found[found["knows"] == knows].groupby("person")["value"].mean().astype(float).round(DIGITS)


def _by_person(metric: AnyMetric, rows: pd.DataFrame, bar: pd.DataFrame | None) -> pd.Series[float]:
    """The value of each person of one model's rows; `bar` are the reference's."""
    if isinstance(metric, Mean):
        found = _mean_by_person(metric, rows)
        if metric.better != NEARER or bar is None:
            return found
        return (found - _mean_by_person(metric, bar)).abs().dropna()
    if isinstance(metric, Whole):
        pairs = rows["modality"].nunique() > 1  # without both there is no number
        return pd.Series(
            {who: metric.value(mine) for who, mine in rows.groupby("person") if pairs}, dtype=float
        ).dropna()
    about = ["person", "question", "truth_ratio"]
    its = dict(list(bar[about].groupby("person"))) if bar is not None else {}
    both = ((who, mine, its[who]) for who, mine in rows[about].groupby("person") if who in its)
    return pd.Series({who: metric.value(mine, other) for who, mine, other in both}, dtype=float).dropna()


def _mean_by_person(metric: Mean, rows: pd.DataFrame) -> pd.Series[float]:
    values = metric.values(rows)
    return values.groupby(rows.loc[values.index, "person"]).mean()
