"""Independent jobs on Ray: run each, and once more where its worker died."""

from __future__ import annotations

import os
import socket
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.core.layout import StudyFolder
from study.engine.cluster import FOLDER_VARIABLE, NotShared, sees, start


@dataclass(frozen=True)
class Job:
    """A function of this project with its arguments, and what to call it on the screen."""

    name: str
    work: Callable[..., object]
    arguments: tuple[Any, ...]


def run_all(
    jobs: Sequence[Job], done: Callable[[Job, str], None], *, at_once: int, gpus: float, cpus: float = 1
) -> dict[str, str]:
    """Run independent jobs, at most `at_once`; a job whose worker dies is tried once more.

    What a worker has loaded serves its next job. `done(job, error)` is called as each ends. Returns the error of each
    job that failed, by name.
    """
    if not jobs:
        return {}
    start()
    import ray

    waiting, second_chance = deque(jobs), SecondChance()
    workers = _Workers(cpus, gpus)
    running: dict[Any, Job] = {}
    errors: dict[str, str] = {}
    while waiting or running:
        while waiting and len(running) < at_once:  # a cluster grows to what is asked for
            job = waiting.popleft()
            running[workers.begin(job)] = job
        [ready], _ = ray.wait(list(running))
        job = running.pop(ready)
        try:
            error = ray.get(ready)
        except ray.exceptions.RayError as died:
            error = f"the worker died: {str(died).splitlines()[0]}"
            workers.end(ready, keep=False)
            if second_chance.left(job.name):
                waiting.appendleft(job)
                continue
        else:
            workers.end(ready, keep=bool(waiting))
        if error:
            errors[job.name] = error
        done(job, error)
    return errors


class SecondChance:
    """A job whose worker dies is given to another one, once: it may be the machine's fault, or the job's.

    `run_all` gives the job out again itself; Tune's searcher does so at its next `suggest`.
    """

    def __init__(self) -> None:
        self._died: set[str] = set()

    def left(self, job: str) -> bool:
        """Whether a job whose worker has just died is to be tried again."""
        first = job not in self._died
        self._died.add(job)
        return first


class _Workers:
    """Who does jobs: on CPUs Ray's own workers, which live on between tasks. With GPUs it ends them after each, so that
    none keeps a GPU's memory; there they are actors, which do one job after another and go when none is waiting."""

    def __init__(self, cpus: float, gpus: float) -> None:
        import ray

        self._task: Any = ray.remote(num_cpus=cpus, max_retries=0)(run_quietly)
        self._actor: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(_Worker) if gpus else None
        self._free: list[Any] = []
        self._busy: dict[Any, Any] = {}

    def begin(self, job: Job) -> Any:
        """Give somebody a job; returns where its error will be."""
        if not self._actor:
            return self._task.remote(job.work, job.arguments)
        actor = self._free.pop() if self._free else self._actor.remote()
        reference = actor.run.remote(job.work, job.arguments)
        self._busy[reference] = actor
        return reference

    def end(self, reference: Any, *, keep: bool) -> None:
        """Keep who did a job for another one, or let them go: somebody may be waiting for their GPU."""
        actor = self._busy.pop(reference, None)
        if actor and keep:
            self._free.append(actor)


class _Worker:
    """A process that runs jobs."""

    def run(self, work: Callable[..., object], arguments: tuple[Any, ...]) -> str:
        """As `run_quietly`."""
        return run_quietly(work, arguments)


def quiet_worker() -> None:
    """Settings of every worker process: one thread by default, no bars of other libraries.

    Raises `NotShared` on a machine that does not see the study's folder: it would keep its results to itself.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder and not sees(StudyFolder(Path(folder)).settings):
        raise NotShared(f"{socket.gethostname()} does not see {folder}: every node must mount it at that path")


def run_quietly(work: Callable[..., object], arguments: tuple[Any, ...]) -> str:
    """Run a job in a worker; returns the last line of what went wrong, or nothing."""
    try:
        quiet_worker()
        work(*arguments)
    except Exception as error:  # a job's failure is a result: it is counted, shown and never ends the study
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    return ""
