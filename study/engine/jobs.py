"""Independent jobs on Ray: each is run, and run once more after what another worker may do without."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from study.core.failures import Failure, FailureKind, Streak
from study.core.layout import StudyFolder
from study.engine.cluster import FOLDER_VARIABLE, NotShared, sees, start
from study.engine.failures import failure_of, killed_for_memory, lost_worker
from study.engine.isolation import end_if_spoilt, is_spoilt

PASSING: tuple[FailureKind, ...] = ("worker lost", "out of memory (host)", "out of memory (device)")
"""Failures after which another worker may succeed, so that it tries once: the machine or the job may be at fault."""


def _stays_open(reason: str) -> bool:
    return False


@dataclass(frozen=True)
class Job:
    """A function of this project with its arguments, and the job's name on the screen."""

    name: str
    work: Callable[..., object]
    arguments: tuple[Any, ...]
    too_small: Callable[[str], bool] = _stays_open
    """Records, here and not in a worker, that the device is too small for the job, which is its result; returns whether
    it did. By default that is an accident like any other."""


Done = Callable[[Job, Failure | None], None]
"""Called as each job ends."""


def run_all(jobs: Sequence[Job], done: Done, *, at_once: int, gpus: float, cpus: float = 1) -> dict[str, Failure]:
    """Run independent jobs, at most `at_once` at a time; a job whose failure may pass (`PASSING`) is run once more.

    Workers keep what they have loaded for their next job. Returns the failure of each job that stays open, by name.
    After several of these in a row (`Streak`) no further job begins.
    """
    if not jobs:
        return {}
    start()
    import ray

    waiting, chances, streak = deque(jobs), Chances(), Streak()
    workers, killed = _Workers(cpus, gpus), killed_for_memory()
    running: dict[Any, Job] = {}
    failure: Failure | None
    failures: dict[str, Failure] = {}
    while waiting or running:
        while waiting and len(running) < at_once:  # a cluster grows with the number of requested jobs
            job = waiting.popleft()
            running[workers.begin(job)] = job
        [ready], _ = ray.wait(list(running))
        job, lost, spoilt = running.pop(ready), False, False
        try:
            failure, spoilt = ray.get(ready)
        except ray.exceptions.RayError:
            failure, killed, lost = lost_worker(killed), killed_for_memory(), True
        if spoilt:
            chances.spare_one()
        if again := failure is not None and not streak.ends and chances.left(failure, job.name):
            waiting.appendleft(job)
        workers.end(ready, keep=not lost and bool(waiting))
        if again:
            continue
        done(job, failure)
        if failure and failure.smallest and alone_on_device(gpus) and job.too_small(failure.message):
            continue  # a device does not grow: that is how this job ends here
        if failure:
            failures[job.name] = failure
        streak.add(failure)
        if streak.ends:
            waiting.clear()
    return failures


def alone_on_device(gpus: float) -> bool:
    """Whether no other job is on the device of a job: then it is the job itself that does not fit."""
    return gpus == 0 or gpus >= 1


class Chances:
    """A job whose failure may pass is given to a worker again, once: the machine or the job may be at fault.

    `run_all` resubmits the job itself; Tune's searcher does so at its next `suggest`. Workers that are lost and devices
    that are full are counted apart: one accident does not use up the other's chance. A worker in which a job left
    threads ends at its next job, which is not to blame: so many deaths are not counted.
    """

    _spared: ClassVar[int] = 0
    """Workers that will end by themselves. Counted over all stages, as their next job may be one of the next stage."""

    def __init__(self) -> None:
        self._failed: set[tuple[str, bool]] = set()
        """Jobs that had their second chance, and whether it was for a full device."""

    def spare_one(self) -> None:
        """Expect a worker to end by itself."""
        Chances._spared += 1

    def left(self, failure: Failure, job: str) -> bool:
        """Whether a job that has just failed so should be run again."""
        full = failure.kind == "out of memory (device)"
        if failure.kind not in PASSING:
            return False
        if Chances._spared and not full:
            Chances._spared -= 1
            return True
        first = (job, full) not in self._failed
        self._failed.add((job, full))
        return first


class _Workers:
    """Workers of jobs. On CPUs they are Ray's own, which survive between tasks. With GPUs Ray ends these after each
    task to free the GPU's memory, so there they are actors, which run one job after another until none is waiting."""

    def __init__(self, cpus: float, gpus: float) -> None:
        import ray

        self._task: Any = ray.remote(num_cpus=cpus, max_retries=0)(_run)
        self._actor: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(_Worker) if gpus else None
        self._free: list[Any] = []
        self._busy: dict[Any, Any] = {}

    def begin(self, job: Job) -> Any:
        """Start a job; returns the reference of what `_run` returns."""
        if not self._actor:
            return self._task.remote(job.work, job.arguments)
        actor = self._free.pop() if self._free else self._actor.remote()
        reference = actor.run.remote(job.work, job.arguments)
        self._busy[reference] = actor
        return reference

    def end(self, reference: Any, *, keep: bool) -> None:
        """Keep the worker of a job for another one, or release it: others may be waiting for its GPU."""
        actor = self._busy.pop(reference, None)
        if actor and keep:
            self._free.append(actor)


class _Worker:
    """A process that runs jobs."""

    def run(self, work: Callable[..., object], arguments: tuple[Any, ...]) -> tuple[Failure | None, bool]:
        """As `_run`."""
        return _run(work, arguments)


def _run(work: Callable[..., object], arguments: tuple[Any, ...]) -> tuple[Failure | None, bool]:
    """Run a job in a worker; returns its failure, and whether the worker will end at its next job."""
    return run_quietly(work, arguments), is_spoilt()


def quiet_worker() -> None:
    """Settings of every worker process: one thread by default, no progress bars of other libraries.

    Raises `NotShared` on a machine that does not see the study's folder: its results would be lost. A process in which
    an earlier job left threads ends here.
    """
    end_if_spoilt()
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder and not sees(StudyFolder(Path(folder)).settings):
        raise NotShared(f"{socket.gethostname()} does not see {folder}: every node must mount it at that path")


def run_quietly(work: Callable[..., object], arguments: tuple[Any, ...]) -> Failure | None:
    """Run a job in a worker; returns its failure, or nothing: one job that fails does not end the others."""
    try:
        quiet_worker()
        work(*arguments)
    except Exception as error:
        return failure_of(error)
    return None
