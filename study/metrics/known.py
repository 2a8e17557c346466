"""Which questions a model knows that its references do not: only of these can be seen whether they were forgotten.

A real benchmark is memorised in part: published vanilla models answer half of what was taught. What vanilla does not
know better than models that never learned it cannot be forgotten, and adds noise to every measure.

Of four options a reference guesses one in four right. To leave out just those questions would make the references look
as if they knew less than a retraining does, so one or two of them judge a question by what they know on average of
others of its kind. Three or more that all know it are no luck: it can be told without having been taught.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import pandas as pd

from study.core.terms import Group
from study.metrics.scored import counting

MARGIN = 0.2
"""By how much vanilla's probability must exceed what the references know: as much as the gate allows a reference to
know above the blind level."""
NO_LUCK = 3
"""So many references that all know a question have not guessed it: with four options one in 64 would."""


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
    """The questions of some groups that vanilla does not know better than the references by the margin.

    Choices by the probability of the right option, others by the likelihood of the answer, as in the forget gap.
    """
    asked = _of(vanilla, groups)
    own = _by_question(asked)
    theirs = pd.concat([_by_question(_of(rows, groups)) for rows in references], axis=1).reindex(own.index)
    kinds = [asked[name].to_numpy() for name in ("role", "modality", "task")]
    usual = theirs.mean(axis=1).groupby(kinds).transform("mean")
    known = own - usual >= margin
    if len(references) >= NO_LUCK:
        known &= own - theirs.min(axis=1) >= margin
    return frozenset(map(str, own.index[~known]))


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


def _by_question(rows: pd.DataFrame) -> pd.Series[float]:
    return counting(rows).set_axis(rows["question"])
