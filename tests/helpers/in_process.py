"""A whole study in this process: its jobs run one after another where they are asked for, and Ray never starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from study.core.console import console
from study.core.failures import Failure
from study.engine import cluster, jobs
from study.engine.jobs import Job
from study.experiment import checkpoints, trial
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned
from study.run import parse
from study.stages import base_check, launch, pipeline
from study.stages import learn as learn_stage
from tests.helpers.page import dots


def _run_all(jobs_: Sequence[Job], done: jobs.Done, **_: Any) -> dict[str, Failure]:
    for job in jobs_:
        job.work(*job.arguments)
        done(job, None)
    return {}


def _tune_search(search: Any, *, tell: Callable[[str, float], None], **_: Any) -> dict[str, Failure]:
    from study.engine.optuna_search import Proposer

    proposer = Proposer(search)
    for number in range(search.trials):
        for label in search.labels:
            if search.proposal(label, number) is None and search.exhausted(label, number):
                continue
            job = search.job(label, proposer.propose(label, number).params)
            if not search.is_done(job):
                search.execute(job, label, number, 0.0)
                tell(label, 1)
    return {}


def _learn_all(context: StudyContext, models: Sequence[Learned], **_: Any) -> None:
    for model in models:
        learn(context, model)


@contextmanager
def without_ray() -> Iterator[None]:
    """Within the block studies run in this process."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cluster, "start", lambda: None)
        patched.setattr(launch, "run_all", _run_all)
        patched.setattr(base_check, "run_all", _run_all)
        patched.setattr(learn_stage, "run_all", _run_all)
        patched.setattr(learn_stage, "learn_all", _learn_all)
        patched.setattr("study.engine.tune_runner.tune_search", _tune_search)
        yield


def run_here(folder: Path, *settings: str, preset: str = "smoke") -> str:
    """What `study/run.py` does with these arguments, in this process and with dots for figures; what it prints.

    Starting Ray, its workers and all that they import takes far longer than a small study itself.
    """
    study = parse([preset, "--study-dir", str(folder), *settings]).resolved()
    forget(folder)
    with without_ray(), dots(), console.capture() as printed:
        assert pipeline.run(study) == 0
    forget(folder)
    return printed.get()


def forget(root: Path) -> None:
    """Let go of what this process remembers of a study, as a new one would."""
    checkpoints.evict()
    trial._judged.cache_clear()
