"""Ray as a place to run jobs: start it, or join a cluster, and run independent jobs on it."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.console import console
from study.store import Folder

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
_FOLDER = "STUDY_FOLDER"
"""Environment variable of workers: the study's folder, if they may be on other machines than who began it."""
_SEEN_WITHIN = 10.0
"""Seconds after which a file that was written on one machine must be visible on another; NFS takes up to a few."""


class NotShared(RuntimeError):
    """A machine of the cluster does not see the study's folder."""


@dataclass(frozen=True)
class Job:
    """A function of this project with its arguments, and what to call it on the screen."""

    name: str
    work: Callable[..., object]
    arguments: tuple[Any, ...]


@contextmanager
def started(address: str, cpus: int, threads: int, folder: Path | None = None) -> Iterator[None]:
    """Ray, up for the duration of the block: the cluster at `address`, or a private one on this machine.

    The private one listens without dashboard and under a token of its own. On a cluster, every worker first looks for
    the study's `folder`, and one that lets in everybody is warned of. Raises `ConnectionError` that names the address
    if nothing answers there, or if it asks for a token that is not ours.
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
        **({_FOLDER: str(folder)} if folder and not private else {}),
    }
    try:
        _knock(address)
        ray.init(
            address=address,
            num_cpus=cpus if private else None,
            include_dashboard=False if private else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"env_vars": environment},
        )
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise ConnectionError(
            f"no Ray answers at {address}: start it with `ray up`, or leave --address out. If it runs, its token is "
            "not here: copy ~/.ray/auth_token from its head node, or set RAY_AUTH_TOKEN"
        ) from error
    try:
        if not address.startswith("ray://") and asks_for_token(ray.get_runtime_context().gcs_address) is False:
            console.print(
                f"warning: the Ray at {address} asks for no token: whoever reaches its ports can run code as you. "
                "Start it with RAY_AUTH_MODE=token on every node (`ray get-auth-token --generate` makes the token)",
                style="bold yellow",
                markup=False,
            )
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise `ConnectionError` if nothing listens at host:port: Ray would wait for a minute and then exit."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(f"{address}: {error}") from error


def asks_for_token(gcs: str) -> bool | None:
    """Whether the Ray whose control store listens at `gcs` (host:port) turns away who has no token.

    Asked as a stranger would, whatever this process has; None if no answer tells.
    """
    import grpc
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc  # private, so the pin of Ray guards it

    messages: Any = gcs_service_pb2  # generated: mypy sees nothing in it
    with grpc.insecure_channel(gcs) as channel:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            stub.CheckAlive(messages.CheckAliveRequest(), timeout=5)
        except grpc.RpcError as error:
            return True if error.code() == grpc.StatusCode.UNAUTHENTICATED else None  # None: TLS, or nothing there
    return False


def blind_nodes(folder: Path) -> list[str]:
    """The addresses of nodes of the cluster that do not see, within seconds, a file that is written to `folder` now.

    Nodes that die meanwhile, or are too busy to say within a minute, are not among them; nor are those to come.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    look = ray.remote(num_cpus=0, max_retries=0)(sees)
    probe = folder / f".probe-{secrets.token_hex(8)}"
    probe.touch()
    try:
        asked = {
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                probe
            ): (str(node["NodeManagerAddress"]))
            for node in ray.nodes()
            if node["Alive"] and node["NodeID"] != here
        }
        ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=60) if asked else ([], [])
        for reference in late:
            ray.cancel(reference)
        return sorted(asked[reference] for reference in ready if _answer(reference) is False)
    finally:
        probe.unlink()


def sees(path: Path, within: float = _SEEN_WITHIN) -> bool:
    """Whether a path is there, or comes within some seconds."""
    until = time.monotonic() + within
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _answer(reference: Any) -> bool | None:
    import ray

    try:
        return bool(ray.get(reference))
    except ray.exceptions.RayError:  # the node went away
        return None


def is_private(address: str) -> bool:
    """Whether a study with this `address` setting starts a Ray of its own."""
    return _address(address) == "local"


def gpus() -> float:
    """How many GPUs the cluster has now."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def _address(address: str) -> str:
    return address or os.environ.get("RAY_ADDRESS", "") or "local"


def run_all(
    jobs: Sequence[Job], done: Callable[[Job, str], None], *, at_once: int, gpus: float, cpus: float = 1
) -> dict[str, str]:
    """Run independent jobs, at most `at_once`; a job whose worker dies is tried once more.

    What a worker has loaded serves its next job. `done(job, error)` is called as each ends. Returns the error of each
    job that failed, by name.
    """
    import ray

    waiting, again = deque(jobs), set[str]()
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
            if job.name not in again:
                again.add(job.name)
                waiting.appendleft(job)
                continue
        else:
            workers.end(ready, keep=bool(waiting))
        if error:
            errors[job.name] = error
        done(job, error)
    return errors


class _Workers:
    """Who does jobs: on CPUs Ray's own workers, which live on between tasks. With GPUs it ends them after each, so that
    none keeps a GPU's memory; there they are actors, which do one job after another and go when none is waiting."""

    def __init__(self, cpus: float, gpus: float) -> None:
        import ray

        self._task: Any = ray.remote(num_cpus=cpus, max_retries=0)(_quietly)
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
        """As `_quietly`."""
        return _quietly(work, arguments)


def quiet_worker() -> None:
    """Settings of every worker process: one thread by default, no bars of other libraries.

    Raises `NotShared` on a machine that does not see the study's folder: it would keep its results to itself.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    folder = os.environ.get(_FOLDER)
    if folder and not sees(Folder(Path(folder)).settings):
        raise NotShared(f"{socket.gethostname()} does not see {folder}: every node must mount it at that path")


def _quietly(work: Callable[..., object], arguments: tuple[Any, ...]) -> str:
    """Run a job in a worker; returns the last line of what went wrong, or nothing."""
    try:
        quiet_worker()
        work(*arguments)
    except Exception as error:  # a job's failure is a result: it is counted, shown and never ends the study
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    return ""
