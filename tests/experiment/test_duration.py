"""Methods whose schedules are in epochs: one space for all forget ratios, and trials in steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial

from search_spaces import npo as space
from study.contracts import Material
from study.core.terms import Goal
from study.data.benchmark import Benchmark
from study.data.halves import prepared
from study.experiment.context import StudyContext
from study.experiment.duration import timed
from study.experiment.method_search import MethodSearch
from study.experiment.trial_spec import Learned, Trial
from study.methods.npo import NPO
from study.methods.prompting import Prompting
from study.presets import PUBLISHED
from study.training.schedule import Schedule
from tests.helpers.small import Given

VANILLA = Learned("vanilla", "", "", None, None, Schedule(), ("llm",), 0)


@pytest.fixture
def context(benchmark: Benchmark, tmp_path: Path) -> StudyContext:
    return StudyContext(tmp_path, Given(benchmark), tmp_path)


def steps(context: StudyContext, ratio: int, goal: Goal = "visual", modality: Material = "all") -> Schedule:
    method = NPO(schedule=PUBLISHED, modality=modality)
    found = timed(context, Trial(VANILLA, method, goal, ratio, 0)).method.schedule
    assert found
    return found


def test_an_epoch_takes_as_many_steps_as_there_is_to_forget(context: StudyContext) -> None:
    split = prepared(context.benchmark).split(10)
    pictured = [x for x in split.lessons if x.person in split.forget_people and x.picture]
    ten = steps(context, 10)
    assert ten.steps == len(pictured) / 4
    assert steps(context, 20).steps == 2 * ten.steps
    assert ten.texts == 1  # the retain set has text
    assert steps(context, 10, "full").steps == ten.steps
    text = [x for x in split.lessons if x.person in split.forget_people and not x.picture]
    assert steps(context, 10, "full", "text").steps == -(-len(text) // (4 * 8))


def test_what_is_in_steps_or_trains_nothing_stays(context: StudyContext) -> None:
    for method in (NPO(), Prompting()):
        trial = Trial(VANILLA, method, "visual", 10, 0)
        assert timed(context, trial) is trial


def test_epochs_are_searched_alike_at_every_ratio_and_kept_as_steps(context: StudyContext) -> None:
    default = NPO(schedule=PUBLISHED)
    search = MethodSearch(
        context=context,
        defaults={"npo": default},
        trials=4,
        ratios=(10, 20),
        baselines={ratio: [Trial(VANILLA, default, "visual", ratio, 0)] for ratio in (10, 20)},
        goal="visual",
        seed=0,
        lookahead=1,
        startup_trials=1,
    )
    found: list[Any] = []
    for number, ratio in enumerate((10, 20)):
        params = search.initial_params("npo", number)
        assert params
        found.append(search.build_job("npo", FixedTrial({**params, "forget_ratio": ratio})).method.schedule)
    assert [schedule.epochs for schedule in found] == [0.0, 0.0]
    assert found[1].steps == 2 * found[0].steps
    asked = FixedTrial({**search.initial_params("npo", 0), "epochs": 2.0})  # type: ignore[dict-item]
    assert space.space(asked, default).schedule == dataclasses.replace(PUBLISHED, epochs=2.0)
    assert "steps" not in asked.params
