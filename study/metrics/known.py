"""Which questions a model knows that its references do not: only of these can be seen whether they were forgotten.

A real benchmark is memorised in part: published vanilla models answer half of what was taught. What vanilla does not
know better than a model that never learned it cannot be forgotten, and adds noise to every measure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import pandas as pd

from study.core.terms import Group
from study.metrics.forget_gap import MEASURES

MARGIN = 0.2
"""By how much vanilla's probability must exceed that of every reference: more than retrainings from other seeds differ
on a question of the embedded world nine times in ten, and less than half of what a known one differs by."""


class Known(NamedTuple):
    """What vanilla knows of one group of questions, or of all that must go."""

    questions: int
    of_questions: int
    people: int
    """Of whom a choice is known in each half of the questions."""
    of_people: int


def unknown(
    vanilla: pd.DataFrame, references: Sequence[pd.DataFrame], groups: Collection[Group], margin: float = MARGIN
) -> frozenset[str]:
    """The questions of some groups that vanilla does not know better than every reference by the margin.

    Choices by the probability of the right option, others by the likelihood of the answer, as in the forget gap.
    """
    own = _measured(_of(vanilla, groups))
    theirs = pd.concat([_measured(_of(rows, groups)) for rows in references], axis=1).reindex(own.index)
    return frozenset(map(str, own.index[~(own - theirs.max(axis=1, skipna=False) >= margin)]))


def counted(vanilla: pd.DataFrame, dropped: Collection[str], groups: Collection[Group]) -> Known:
    """How many of the choices and people of some groups are known, if the `dropped` questions are not."""
    rows = _of(vanilla, groups)
    asked = rows[rows["task"] == "classification"]
    known = asked[~asked["question"].isin(dropped)]
    halves = known.groupby("person")["half"].nunique()
    both = asked.groupby("person")["half"].nunique().max() if len(asked) else 0
    return Known(len(known), len(asked), int((halves == both).sum()), asked["person"].nunique())


def _of(rows: pd.DataFrame, groups: Collection[Group]) -> pd.DataFrame:
    there = zip(rows["role"], rows["modality"], strict=True)
    return rows[[group in groups for group in there]]


def _measured(rows: pd.DataFrame) -> pd.Series[float]:
    """The number by which each question counts, by its ID."""
    choices = rows["task"] == "classification"
    values = rows[MEASURES["classification"]].where(choices, rows[MEASURES["generation"]])
    return pd.Series(values.to_numpy(dtype=float), index=rows["question"])
