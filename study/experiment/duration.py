"""How long a trial trains: a schedule in epochs, counted in steps over the lessons that its method forgets."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from study.contracts import Material, Request, without_models
from study.core.terms import Goal
from study.experiment.context import StudyContext
from study.experiment.trial_spec import Trial
from study.training.epochs import in_steps


def timed(context: StudyContext, trial: Trial) -> Trial:
    """A trial with its schedule in steps, so that its content, and its key, say how long it trains."""
    method: Any = trial.method
    if method.schedule is None or not method.schedule.epochs:
        return trial
    request = _request(context, trial.goal, trial.ratio, method.modality)
    return replace(trial, method=replace(method, schedule=in_steps(method.schedule, request.forget, request.retain)))


@functools.lru_cache(maxsize=32)  # every proposal asks, and a benchmark has thousands of lessons
def _request(context: StudyContext, goal: Goal, ratio: int, modality: Material) -> Request:
    """The forget request of a method, to look at its lessons."""
    return without_models(context.benchmark.split(ratio), goal).only(modality)
