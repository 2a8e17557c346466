"""Jobs and searches that fail: what is told, what is written down, and when the study stops."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.core.errors import Failed
from study.core.failures import Failure
from study.core.files import read_json
from study.core.layout import StudyFolder
from study.engine import cluster
from study.engine.jobs import Done, Job
from study.presets import PRESETS
from study.settings import Study
from study.stages import launch
from study.stages.launch import raise_first, run_jobs, run_search

DAMAGED = Failure("damaged input", "x.safetensors is damaged: remove it and run the study again")
BUG = Failure("bug", "KeyError: 'a' (vkd.py:7)", "Traceback\n  all of it")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(cluster, "start", lambda: None)
    return dataclasses.replace(PRESETS["smoke"][1], study_dir=tmp_path)


def jobs(count: int) -> list[Job]:
    return [Job(f"job {n}", print, ()) for n in range(count)]


def ending(*failures: Failure | None) -> Any:
    """A stand-in for Ray whose first jobs end like that; the others do not begin."""

    def run_all(asked: Sequence[Job], done: Done, **_: Any) -> dict[str, Failure]:
        ended = list(zip(asked, failures, strict=False))
        for job, failure in ended:
            done(job, failure)
        return {job.name: failure for job, failure in ended if failure}

    return run_all


def test_a_job_that_fails_is_told_and_written_down(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "run_all", ending(None, DAMAGED, BUG))
    told = run_jobs("attack", jobs(3), study)
    folder = StudyFolder(study.study_dir)
    trace = folder.failure("attack", "job 2").with_suffix(".txt")
    assert told == {"job 1": str(DAMAGED), "job 2": f"{BUG}; its traceback is in {trace}"}
    assert trace.read_text() == BUG.trace
    assert read_json(folder.failure("attack", "job 1")) == {
        "stage": "attack", "job": "job 1", "kind": "damaged input", "message": DAMAGED.message,
    }  # fmt: skip
    with pytest.raises(Failed, match=r"job 1: damaged input: x\.safetensors is damaged: remove it"):
        raise_first(told)


def test_jobs_that_were_not_begun_stop_the_study(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "run_all", ending(DAMAGED))
    with pytest.raises(Failed, match=r"(?s)attack stops, and 4 jobs were not begun:\n  job 0: damaged.*same command"):
        run_jobs("attack", jobs(5), study)


def test_a_trial_that_did_not_end_stops_the_study(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    plan: Any = SimpleNamespace(study=study, folder=StudyFolder(study.study_dir))
    search: Any = SimpleNamespace(missing=lambda: 7, cut=lambda: 0)
    monkeypatch.setattr("study.engine.tune_runner.tune_search", lambda *_, **__: {"vkd 3 of 8": BUG})
    with pytest.raises(Failed, match=r"(?s)search stops, and 7 trials are still to be run:\n  vkd 3 of 8: bug: KeyEr"):
        run_search("search", plan, search)
    assert [read_json(path)["job"] for path in plan.folder.failure_records()] == ["vkd 3 of 8"]
