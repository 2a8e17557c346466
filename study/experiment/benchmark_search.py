"""The search of methods on a benchmark: it proposes what the data support, and counts epochs in steps."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from study.contracts import Material
from study.core.specs import parameters
from study.core.terms import Goal
from study.data.benchmark import Lesson
from study.engine.choices import without
from study.engine.optuna_search import BaseTrial
from study.experiment.context import StudyContext
from study.experiment.method_search import MethodSearch
from study.experiment.trial_spec import Trial
from study.training.epochs import in_steps


@dataclass(frozen=True)
class BenchmarkSearch(MethodSearch):
    """What needs pictures of strangers is proposed only where there are any.

    A trial holds steps, so that its content, and its key, say how long it trains.
    """

    def build_job(self, label: str, trial: BaseTrial) -> Trial:
        """The proposed trial, in steps over the lessons that it forgets."""
        return timed(self.context, super().build_job(label, without(trial, self._unsupported(label))))

    def initial_params(self, label: str, number: int) -> Mapping[str, Any] | None:
        """What an earlier study won with and these data do not support is the default's."""
        asked = super().initial_params(label, number)
        if asked is None:
            return None
        start, lacking = parameters(self.defaults[label]), self._unsupported(label)
        return {name: start[name] if value in lacking.get(name, ()) else value for name, value in asked.items()}

    def _unsupported(self, label: str) -> Mapping[str, tuple[str, ...]]:
        """The choices that nothing on this benchmark can be done with, by parameter."""
        needs = {} if self.context.benchmark.strangers else self.defaults[label].needs_strangers
        return {name: need.values for name, need in needs.items()}


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
