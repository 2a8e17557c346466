"""The rows of one model with what objectives ask of them, each looked up once.

A search compares every trial with the same vanilla and references, and a report compares all of them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from study.core.terms import Group, Task

MEASURES: dict[Task, str] = {"classification": "probability", "generation": "likelihood", "cloze": "likelihood"}
"""The column of rows by which a question of each task counts."""
KIND = ["role", "modality", "task"]
Kind = tuple[str, str, str]
"""One kind of questions, by these columns."""
Choice = tuple[str, float]
"""A multiple choice: its question, and the probability of the right option."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Rows of scored questions, which nobody changes."""

    rows: pd.DataFrame

    @cached_property
    def questions(self) -> frozenset[str]:
        """All that was asked."""
        return frozenset(self.rows["question"])

    @cached_property
    def choices(self) -> Mapping[Group, list[Choice]]:
        """The multiple choices of each group, in the order of the rows."""
        found: dict[Any, list[Choice]] = {}
        names = ["role", "modality", "task", "question", "probability"]
        for role, modality, task, *choice in zip(*(self.rows[name].tolist() for name in names), strict=True):
            if task == "classification":
                found.setdefault((role, modality), []).append((choice[0], choice[1]))
        return found

    @cached_property
    def known(self) -> pd.DataFrame:
        """What is known of each person (lines) in each kind of questions (columns), the mean over the questions.

        NaN where a person is not asked in that way.
        """
        by_person = counting(self.rows).groupby([self.rows[name] for name in (*KIND, "person")])
        means: pd.Series[float] = by_person.mean()
        return means.unstack(KIND)

    def people(self, kinds: tuple[Kind, ...]) -> pd.DataFrame:
        """The columns of `known` for some kinds, with a line for each person who is asked in one of these ways."""
        if kinds not in self._people:
            self._people[kinds] = self.known[list(kinds)].dropna(how="all").sort_index()
        return self._people[kinds]

    @cached_property
    def _people(self) -> dict[tuple[Kind, ...], pd.DataFrame]:
        return {}

    @cached_property
    def lacking(self) -> Mapping[Kind, bool]:
        """For each kind of questions whether some have no number."""
        found = counting(self.rows).isna().groupby([self.rows[name] for name in KIND]).any()
        return dict(zip(found.index, found, strict=True))


def counting(rows: pd.DataFrame) -> pd.Series[float]:
    """The number by which each question counts."""
    choices = rows["task"] == "classification"
    return rows[MEASURES["classification"]].where(choices, rows[MEASURES["generation"]]).astype(float)


Rows = pd.DataFrame | Scored


def scored(rows: Rows) -> Scored:
    """Rows with what was looked up in them."""
    return rows if isinstance(rows, Scored) else Scored(rows)
