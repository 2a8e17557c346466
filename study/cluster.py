"""Ray as a place to run jobs: start it, or join a cluster, and run independent jobs on it."""

from __future__ import annotations

import logging
import os
import secrets
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent

# Read by Ray when it is imported or started, so they are set before that. What each does:
_SETTINGS = {
    "RAY_AUTH_MODE": "token",  # whoever reaches the ports of a Ray without a token can run code
    "RAY_memory_monitor_refresh_ms": "0",  # its kills end a whole Tune run; the kernel's end one trial
    "RAY_worker_maximum_startup_concurrency": "16",  # else Ray warns of its own helper processes on small machines
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # else each report to Ray Train blocks for two seconds
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports no objective and must not end the run
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


@dataclass(frozen=True)
class Job:
    """A function of this project with its arguments, and what to call it on the screen."""

    name: str
    work: Callable[..., object]
    arguments: tuple[Any, ...]


@contextmanager
def started(address: str, workers: int, threads: int) -> Iterator[None]:
    """Ray, up for the duration of the block: the cluster at `address`, or a private one on this machine.

    The private one listens without dashboard and under a token of its own. Raises `ConnectionError` that names the
    address if nothing answers there.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    address, private = _address(address), is_private(address)
    if private:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    try:
        ray.init(
            address=address,
            num_cpus=max(workers, 1) if private else None,
            include_dashboard=False if private else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"env_vars": environment},
        )
    except ConnectionError as error:
        raise ConnectionError(f"no Ray answers at {address}: start it with `ray up`, or leave --address out") from error
    try:
        yield
    finally:
        ray.shutdown()


def is_private(address: str) -> bool:
    """Whether a study with this `address` setting starts a Ray of its own."""
    return _address(address) == "local"


def gpus() -> float:
    """How many GPUs the cluster has now."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def _address(address: str) -> str:
    return address or os.environ.get("RAY_ADDRESS", "") or "local"


def run_all(jobs: Sequence[Job], done: Callable[[Job, str], None], *, gpus: float, cpus: float = 1) -> dict[str, str]:
    """Run independent jobs, as many at once as fit; a job whose worker dies is tried once more.

    `done(job, error)` is called as each ends. Returns the error of each job that failed, by name.
    """
    import ray

    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=1)(_quietly)
    running = {remote.remote(job.work, job.arguments): job for job in jobs}
    errors: dict[str, str] = {}
    while running:
        [ready], _ = ray.wait(list(running))
        job = running.pop(ready)
        try:
            errors_of = ray.get(ready)
        except ray.exceptions.RayError as error:
            errors_of = f"the worker died: {str(error).splitlines()[0]}"
        if errors_of:
            errors[job.name] = errors_of
        done(job, errors_of)
    return errors


def quiet_worker() -> None:
    """Settings of every worker process: one thread by default, no bars of other libraries."""
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def _quietly(work: Callable[..., object], arguments: tuple[Any, ...]) -> str:
    """Run a job in a worker; returns the last line of what went wrong, or nothing."""
    quiet_worker()
    try:
        work(*arguments)
    except Exception as error:  # a job's failure is a result: it is counted, shown and never ends the study
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    return ""
