"""Rungs: a trial is scored on a small sample while it trains, and a search may end it there.

The sample is fixed and the same for all methods: some people of every group, evenly spaced, with one picture each and
every question about it. The objectives on it are those of a whole trial, with the rows of the baselines on the same
questions.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from study.core.layout import StudyFolder
from study.core.records import RungScore, TrialRecord, TrialState
from study.core.rows import read_rows
from study.core.sampling import spaced
from study.core.terms import Goal
from study.data.benchmark import Question
from study.engine.world import world
from study.evaluation.scoring import score
from study.experiment.checkpoints import repairable
from study.experiment.trial_spec import Trial
from study.metrics.objectives import forget_groups, objectives
from study.metrics.scored import Scored
from study.model.flop_counter import ComputeCount, counted
from study.model.vlm import VLM
from study.training.loop import Diverged

RUNGS_AT = (1 / 3, 2 / 3)
"""Of a trial's steps, after which it is scored: the first third often shows whether it collapses."""
FORGET_PEOPLE = 8
"""Forget people of each group in the sample. These numbers keep both rungs below 5 % of what a search computes."""
OTHER_PEOPLE = 4
"""Other people of each group: utility is a mean over more groups, so that fewer do."""
TEXTS = 2
"""Questions without picture for each of them."""


@dataclass(frozen=True)
class Ending:
    """How a trial ends early, and why."""

    state: TrialState
    reason: str


class EndedEarly(Exception):
    """A search ends a trial at a rung."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending = ending


Decide = Callable[[RungScore], Ending | None]
"""What a search does with a trial that has a score at a rung: nothing, or end it."""


@dataclass(frozen=True)
class Rungs:
    """What the rungs of a trial need: vanilla and the references of its ratio, and what is decided there."""

    baselines: Sequence[Trial]
    decide: Decide
    ends: tuple[TrialState, ...] = ()
    """The states in which the search may end trials: one on disk that ended in another is run again."""


@dataclass
class Climb:
    """One trial on its way, called after every step of its training."""

    folder: StudyFolder
    trial: Trial
    rungs: Rungs
    questions: Sequence[Question]
    scores: list[RungScore] = field(default_factory=list)
    work: ComputeCount = field(default_factory=ComputeCount)
    seconds: float = 0.0

    def __call__(self, vlm: VLM, done: int, steps: int) -> None:
        """Score the model at a rung; raises `EndedEarly` if the trial ends there."""
        if done not in rung_steps(steps):
            return
        started = time.monotonic()
        with counted(vlm) as work:
            rows = score(vlm, self.questions, reply=False)
        if lacks_numbers(rows):
            raise Diverged(done, "the probabilities of the answers are not numbers")
        self.work = ComputeCount.of([self.work, work])
        found = RungScore(len(self.scores) + 1, done, **self._objectives(rows))
        self.scores.append(found)
        ending = world().broadcast_from_first(lambda: self.rungs.decide(found))
        self.seconds += time.monotonic() - started
        if ending is not None:
            raise EndedEarly(ending)

    def _objectives(self, rows: pd.DataFrame) -> dict[str, float]:
        asked = frozenset(q.id for q in self.questions)
        before, *wanted = (_asked(self.folder, t.key, asked) for t in self.rungs.baselines)
        return objectives(rows, before, wanted, self.trial.goal)


def lacks_numbers(rows: pd.DataFrame) -> bool:
    """Whether an answer has no number for its probability: a wrong option makes no likelihood of its own."""
    choices = rows["task"] == "classification"
    return bool(rows["likelihood"].isna().any() or rows.loc[choices, "probability"].isna().any())


def rung_steps(steps: int) -> list[int]:
    """The steps after which a training of so many is scored; none if it is too short for rungs of their own."""
    found = [round(share * steps) for share in RUNGS_AT]
    return found if 0 < found[0] < found[1] < steps else []


def sample(questions: Sequence[Question], goal: Goal) -> list[Question]:
    """The questions that are asked at a rung, of those of the validation half, in their order.

    At most 8 forget people and 4 others of each group, evenly spaced; of each all questions about one picture, or two
    without one.
    """
    groups = forget_groups(goal)
    by_group: dict[tuple[str, str], dict[str, list[Question]]] = {}
    for q in questions:
        by_group.setdefault((q.role, q.modality), {}).setdefault(q.person, []).append(q)
    chosen: set[str] = set()
    for group, people in by_group.items():
        for person in spaced(sorted(people), FORGET_PEOPLE if group in groups else OTHER_PEOPLE):
            chosen |= {q.id for q in _few(people[person])}
    return [q for q in questions if q.id in chosen]


def _few(asked: Sequence[Question]) -> Sequence[Question]:
    """All questions about the first picture; without pictures the first few."""
    first = asked[0].picture
    return asked[:TEXTS] if first is None else [q for q in asked if q.picture == first]


@functools.lru_cache(maxsize=64)
def _asked(folder: StudyFolder, key: str, questions: frozenset[str]) -> Scored:
    """The rows of a baseline on some questions."""
    with repairable(folder, key):
        rows = read_rows(folder.rows(key, "select"))
    return Scored(rows[rows["question"].isin(questions)])


def values_at(record: TrialRecord, rung: int) -> Mapping[str, float] | None:
    """The objectives of a trial at a rung, if it got there."""
    return next((found.objectives for found in record.rungs if found.rung == rung), None)
