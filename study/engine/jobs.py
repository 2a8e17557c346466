"""Independent jobs on Ray: each is run, and run once more if its worker dies."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.core.failures import Failure, Streak
from study.core.layout import StudyFolder
from study.engine.cluster import FOLDER_VARIABLE, NotShared, sees, start
from study.engine.failures import failure_of, killed_for_memory, lost_worker
from study.engine.isolation import end_if_spoilt, is_spoilt


@dataclass(frozen=True)
class Job:
    """A function of this project with its arguments, and the job's name on the screen."""

    name: str
    work: Callable[..., object]
    arguments: tuple[Any, ...]


Done = Callable[[Job, Failure | None], None]
"""Called as each job ends."""


def run_all(jobs: Sequence[Job], done: Done, *, at_once: int, gpus: float, cpus: float = 1) -> dict[str, Failure]:
    """Run independent jobs, at most `at_once` at a time; a job whose worker dies is run once more.

    Workers keep what they have loaded for their next job. Returns the failure of each job that failed, by name. After
    several failures in a row (`Streak`) no further job begins.
    """
    if not jobs:
        return {}
    start()
    import ray

    waiting, second_chance, streak = deque(jobs), SecondChance(), Streak()
    workers, killed = _Workers(cpus, gpus), killed_for_memory()
    running: dict[Any, Job] = {}
    failure: Failure | None
    failures: dict[str, Failure] = {}
    while waiting or running:
        while waiting and len(running) < at_once:  # a cluster grows with the number of requested jobs
            job = waiting.popleft()
            running[workers.begin(job)] = job
        [ready], _ = ray.wait(list(running))
        job = running.pop(ready)
        try:
            failure, spoilt = ray.get(ready)
        except ray.exceptions.RayError:
            failure, killed = lost_worker(killed), killed_for_memory()
            workers.end(ready, keep=False)
            if second_chance.left(job.name):
                waiting.appendleft(job)
                continue
        else:
            if spoilt:
                second_chance.spare_one()
            workers.end(ready, keep=bool(waiting))
        if failure:
            failures[job.name] = failure
        done(job, failure)
        streak.add(failure)
        if streak.ends:
            waiting.clear()
    return failures


class SecondChance:
    """A job whose worker dies is given to another worker, once: the machine or the job may be at fault.

    `run_all` resubmits the job itself; Tune's searcher does so at its next `suggest`. A worker in which a job left
    threads ends at its next job, which is not to blame: so many deaths are not counted.
    """

    def __init__(self) -> None:
        self._died: set[str] = set()
        self._spared = 0

    def spare_one(self) -> None:
        """Expect a worker to end by itself."""
        self._spared += 1

    def left(self, job: str) -> bool:
        """Whether a job whose worker has just died should be run again."""
        if self._spared:
            self._spared -= 1
            return True
        first = job not in self._died
        self._died.add(job)
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
