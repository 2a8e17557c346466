"""The search of methods whose schedules are in epochs: a proposal becomes steps once its forget request is known."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from study.contracts import Material
from study.core.terms import Goal
from study.data.benchmark import Lesson
from study.engine.optuna_search import BaseTrial
from study.experiment.context import StudyContext
from study.experiment.method_search import MethodSearch
from study.experiment.trial_spec import Trial
from study.training.epochs import in_steps


@dataclass(frozen=True)
class EpochSearch(MethodSearch):
    """A trial holds steps, so that its content, and its key, say how long it trains."""

    def build_job(self, label: str, trial: BaseTrial) -> Trial:
        """The proposed trial, in steps over the lessons that it forgets."""
        return timed(self.context, super().build_job(label, trial))


def timed(context: StudyContext, trial: Trial) -> Trial:
    """A trial with its schedule in steps."""
    method: Any = trial.method
    if method.schedule is None or not method.schedule.epochs:
        return trial
    forget, retain = _lessons(context, trial.goal, trial.ratio, method.modality)
    return replace(trial, method=replace(method, schedule=in_steps(method.schedule, forget, retain)))


@functools.lru_cache(maxsize=32)  # every proposal asks, and a benchmark has thousands of lessons
def _lessons(
    context: StudyContext, goal: Goal, ratio: int, modality: Material
) -> tuple[Sequence[Lesson], Sequence[Lesson]]:
    """What a method forgets, and what it may retain, of the lessons of its modality."""
    split = context.benchmark.split(ratio)
    real = split.real_people
    forget, retain = [], []
    for lesson in split.lessons:
        if modality != "all" and (lesson.picture is None) != (modality == "text"):
            continue
        if split.is_forgotten(lesson, goal):
            forget.append(lesson)
        elif lesson.person not in real:
            retain.append(lesson)
    return forget, retain
