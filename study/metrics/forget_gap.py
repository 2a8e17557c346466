"""The forget gap: how far a model is from retraining, as a distance between distributions over people.

A mean over people can be gamed: a model that keeps two of nine people whole and crushes the rest has the mean of a
retraining. So each person has a score of their own (the mean over their questions) and the gap is the Wasserstein-1
distance between the scores of the model's people and of the references' people, in units of probability: the mean
difference between the k-th best known person here and there. It is not a difference person by person, because two
honest retrainings differ there: which of the forgotten happens to be guessed right is chance. To fall below the
references is distance, too.

Choices alone can be gamed as well, by a model that picks wrong options while it completes clozes. So every task is a
term of its own: a choice counts by the probability of the right option, a generation or a cloze by the likelihood of
its answer, p(answer | question) ^ (1 / tokens); so is each group of questions that must go. The gap is the mean over
the terms.

References are retrainings from several seeds, measured against together. The gap of one of them to the others is the
noise floor: what lies within it cannot be told from retraining.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from study.core.terms import Group, Modality, Role, Task
from study.metrics.formulas import wasserstein
from study.metrics.intervals import Block, Estimate, Values, estimate
from study.metrics.scored import MEASURES, Rows, scored

PEOPLE = "forget people"
"""The axis of the people to be forgotten; the test questions are about the same."""
REFERENCES = "seed of the reference"


class Term(NamedTuple):
    """One kind of questions, which is one term of the gap."""

    role: Role
    modality: Modality
    task: Task


def terms(rows: Rows, groups: Collection[Group]) -> list[Term]:
    """The terms that rows have of the groups that must go."""
    return sorted(Term(*kind) for kind in scored(rows).lacking if kind[:2] in groups)  # type: ignore[arg-type]


def person_scores(rows: Rows, wanted: Sequence[Term], whose: str = "the model") -> pd.DataFrame:
    """The score of each person (lines) in each term (columns); NaN where a person is not asked in that way.

    Raises `ValueError` that names a term without rows, or with rows without a number.
    """
    found = scored(rows)
    for term in wanted:
        if term not in found.lacking:
            raise ValueError(f"{whose} has no {' '.join(term)} rows: score these questions")
        if found.lacking[term]:
            raise ValueError(f"{whose} has {' '.join(term)} rows without {MEASURES[term.task]}: score them again")
    return found.people(tuple(wanted))


def scores(
    runs: Sequence[Rows], wanted: Sequence[Term], whose: str = "the model", people: Sequence[str] | None = None
) -> Values:
    """The person scores of several seeds of one model, of shape (people, seeds, terms); of all `people` if given.

    Raises `ValueError` as `person_scores` does, and if the seeds were not asked about the same people.
    """
    found = [person_scores(rows, wanted, whose) for rows in runs]
    if any(list(frame.index) != list(found[0].index) for frame in found):
        raise ValueError(f"the seeds of {whose} were asked about different people: score them again")
    lines = found[0].index if people is None else pd.Index(people)
    return np.stack([frame.reindex(lines).to_numpy(dtype=float) for frame in found], axis=1)


def gaps(model: Values, references: Values) -> Values:
    """The gap of each seed of a model, from person scores of shape (people, seeds, terms); NaN for a term of nobody.

    A model's seeds are models of their own; the references' are one population.
    """
    population = references.reshape(-1, 1, references.shape[2])
    return np.asarray(wasserstein(model, population).mean(axis=-1))


def gap(model: Values, references: Values) -> float:
    """The mean over a model's seeds of their gaps; NaN without terms."""
    return float(gaps(model, references).mean()) if model.shape[2] else math.nan


def gap_estimate(model: Values, references: Values, seed: str = "seed") -> Estimate:
    """The gap with what people, the model's seeds and the references' seeds add to its variance."""
    blocks = [Block(model, (PEOPLE, seed, "")), Block(references, (PEOPLE, REFERENCES, ""))]
    return estimate(lambda values: gap(*values), blocks, [PEOPLE], [seed, REFERENCES])


def noise_floor(references: Values) -> list[float]:
    """The gap of each reference to all the others; empty for a single one, whose noise is not known."""
    several = references.shape[1]
    if several < 2:
        return []
    return [gap(references[:, [i]], np.delete(references, i, axis=1)) for i in range(several)]


def forget_gap(rows: Rows, references: Sequence[Rows], groups: Collection[Group]) -> float:
    """The gap of one model's rows to those of the references; see the module. Raises `ValueError` as `scores` does."""
    wanted = terms(references[0], groups)
    if missing := [group for group in groups if group not in {term[:2] for term in wanted}]:
        raise ValueError(f"the reference has no {' '.join(missing[0])} rows: score these questions")
    asked = [person_scores(rows, wanted, "the trial"), *(person_scores(r, wanted, "the reference") for r in references)]
    own, *theirs = (frame.to_numpy(dtype=float) for frame in asked)
    same_people = all(frame.index.equals(asked[0].index) for frame in asked)
    if not same_people or any((np.isnan(its) != np.isnan(own)).any() for its in theirs):
        raise ValueError("the trial and the reference were asked about different people: score them again")
    return gap(own[:, None], np.stack(theirs, axis=1))


def known(runs: Sequence[Rows], wanted: Sequence[Term]) -> pd.Series[float]:
    """What a model knows of each person, the mean over its seeds and the terms."""
    return pd.concat([person_scores(rows, wanted).mean(axis=1) for rows in runs], axis=1).mean(axis=1)


def smallest_leak(people: int) -> float:
    """The share of people that may leak though none of `people` did: 3 / n, at 95 % (the rule of three).

    Hanley & Lippman-Hand 1983; the exact bound is 1 - 0.05 ^ (1 / n). At most 1. Questions about one person are not
    independent, so people are counted.
    """
    return min(1.0, 3.0 / people) if people else 1.0
