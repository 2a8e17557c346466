"""The race of the best few trials over further seeds, with trials whose distances are planted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.contracts import Method
from study.core.files import read_json
from study.core.layout import StudyFolder
from study.engine.jobs import Job
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.stages import race as racing
from study.stages.race import race
from study.training.schedule import Schedule

VANILLA = Learned("vanilla", "base", "benchmark", None, None, Schedule(), ("llm",), 0)
DEFAULT = GradientAscent(schedule=Schedule(steps=30))


def trial(steps: int) -> Trial:
    method: Method = replace(DEFAULT, schedule=replace(DEFAULT.schedule, steps=steps))
    return Trial(VANILLA, method, "visual", 10, 5, "gradient_ascent")


@dataclass
class Planted:
    """A search whose trials have a gap for each steps and seed, and what was run of it."""

    gaps: Mapping[int, Sequence[float]]
    """By steps: one for each seed from 5 on; NaN for a run that ends badly."""
    ran: list[tuple[int, int]] = field(default_factory=list)
    attacker: None = None

    def execute_given(self, job: Trial) -> None:
        self.ran.append((self.steps(job), job.seed))

    def is_done(self, job: Trial) -> bool:
        return job.seed == 5 or (self.steps(job), job.seed) in self.ran

    def outcome(self, job: Trial) -> dict[str, float] | None:
        gap = self.gaps[self.steps(job)][job.seed - 5]
        return None if math.isnan(gap) else {"forget_gap": gap, "utility": 1.0}

    @staticmethod
    def default(method: str, ratio: int) -> Trial:
        assert (method, ratio) == ("gradient_ascent", 10)
        return trial(30)

    @staticmethod
    def steps(job: Trial) -> int:
        assert job.method.schedule is not None
        return job.method.schedule.steps

    def judged(self) -> dict[tuple[str, int], dict[Trial, Mapping[str, float]]]:
        found = {trial(steps): self.outcome(trial(steps)) for steps in self.gaps}
        return {("gradient_ascent", 10): {t: values for t, values in found.items() if values is not None}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Race planted trials in a study of a size and so many further seeds."""

    def jobs_run(name: str, jobs: Sequence[Job], study: Any) -> dict[str, str]:
        for job in jobs:
            job.work(*job.arguments)
        return {}

    monkeypatch.setattr(racing, "run_jobs", jobs_run)

    def go(search: Planted, *, size: int = 3, seeds: int = 2) -> Any:
        study = SimpleNamespace(confirm_seeds=seeds, seed=5, race=size)
        plan: Any = SimpleNamespace(study=study, folder=StudyFolder(tmp_path))
        return race(plan, search, search.judged())["gradient_ascent", 10]  # type: ignore[arg-type]  # planted

    return go


def test_the_luckiest_of_one_seed_does_not_win(run: Any) -> None:
    search = Planted({10: (0.05, 0.30, 0.31), 11: (0.10, 0.11, 0.10), 30: (0.12, 0.13, 0.14), 13: (0.5, 0.0, 0.0)})
    found = run(search)
    assert found.best == trial(11)
    assert {steps for steps, _ in search.ran} == {10, 11, 30}  # 13 was too far behind to race


def test_the_default_always_races(run: Any) -> None:
    """So that what tuning gains is known for every seed, however far behind it is."""
    search = Planted({10: (0.10, 0.1, 0.1), 11: (0.11, 0.1, 0.1), 12: (0.12, 0.1, 0.1), 30: (0.6, 0.6, 0.6)})
    found = run(search)
    assert found.default == trial(30)
    assert (30, 6) in search.ran
    assert found.runs(trial(30)) == [replace(trial(30), seed=5), replace(trial(30), seed=6)]


def test_who_is_behind_is_not_run_again(run: Any) -> None:
    search = Planted({10: (0.1, 0.11, 0.1), 11: (0.1, 0.1, 0.12), 12: (0.5, 0.52, 0.5), 30: (0.9, 0.91, 0.9)})
    run(search)
    assert {place for place in search.ran if place[1] == 7} == {(10, 7), (11, 7)}


def test_a_run_that_ends_badly_loses(run: Any) -> None:
    search = Planted({10: (0.05, math.nan, 0.0), 30: (0.3, 0.3, 0.3)})
    assert run(search).best == trial(30)


@pytest.mark.parametrize("setting", [{"size": 1}, {"seeds": 0}])
def test_without_a_race_the_best_of_one_seed_wins(setting: dict[str, int], run: Any) -> None:
    search = Planted({10: (0.05, 0.9, 0.9), 30: (0.3, 0.1, 0.1)})
    assert run(search, **setting).best == trial(10)
    assert search.ran == []


def test_a_race_goes_on_where_it_was(run: Any, tmp_path: Path) -> None:
    """What is on disk is not run again, and the record says who came how far."""
    search = Planted({10: (0.1, 0.12, 0.1), 11: (0.11, 0.1, 0.12), 30: (0.12, 0.11, 0.1)})
    first = run(search)
    ran = list(search.ran)
    assert run(search).best == first.best
    assert search.ran == ran
    record = read_json(StudyFolder(tmp_path).race)["gradient_ascent 10"]
    assert record["best"] == first.best.key
    assert record["racing"] == [t.key for t in first.racing]
    assert {one["trial"]: len(one["distances"]) for one in record["runs"]} == {trial(s).key: 3 for s in (10, 11, 30)}
