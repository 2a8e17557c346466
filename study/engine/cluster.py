"""Start a private Ray or join a cluster, and check what its nodes see."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

from study.core import plugins, signals
from study.core.console import console
from study.core.plugins import ROOT
from study.engine import sessions
from study.engine.fork_server import PLACE, PREFIX, template
from study.engine.waiting import told_while_waiting
from study.engine.watching import SILENT, ended_here, ends_with_ray, silent_there

# Read by Ray when it is imported or started, so they are set before that. What each does:
_SETTINGS = {
    "RAY_AUTH_MODE": "token",  # without a token, whoever reaches Ray's ports can run code
    "RAY_memory_monitor_refresh_ms": "0",  # its kills end a whole Tune run, those of the kernel a single trial
    "RAY_worker_maximum_startup_concurrency": "16",  # else Ray warns of its own helper processes on small machines
    "RAY_prestart_worker_first_driver": "0",  # such workers have no runtime environment and cannot run our jobs
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # else each report to Ray Train blocks for two seconds
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports no objective and must not end the run
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}
FOLDER_VARIABLE = "STUDY_FOLDER"
"""Environment variable of workers: the study's folder, if they may be on other machines than the driver."""
_IDLE = 30
"""Seconds after which a worker without a job ends and frees the models that it keeps. Ray's own second is shorter than
the pause between two stages of a study, whose jobs would all meet workers that load everything anew."""
_SEEN_WITHIN = 10.0
"""Seconds after which a file that was written on one machine must be visible on another; NFS takes up to a few."""


class NotShared(OSError):
    """A machine of the cluster does not see the study's folder."""


_START: ContextVar[Callable[[], None]] = ContextVar("start", default=lambda: None)


@contextmanager
def on_demand(ray: AbstractContextManager[None], check: Callable[[], None]) -> Iterator[None]:
    """Within the block, the first `start` enters `ray`, which is `started`, and calls `check`.

    A finished study needs no Ray: importing, starting and ending it takes several seconds.
    """
    with ExitStack() as stack:

        def begin() -> None:
            _START.set(lambda: None)
            stack.enter_context(ray)
            check()

        before = _START.set(begin)
        try:
            yield
        finally:
            _START.reset(before)


def start() -> None:
    """Start what `on_demand` prepared, unless it has started. To be called before anything runs on Ray."""
    _START.get()()


@contextmanager
def started(
    address: str, cpus: int, threads: int, folder: Path | None = None, *, preloaded: str = ""
) -> Iterator[None]:
    """Ray for the duration of the block: the cluster at `address`, or a private one on this machine.

    The private one has no dashboard and its own token; its workers are forks of a process that has run the module
    `preloaded`, if one is named (`study.engine.fork_server`). On a cluster, every worker first looks for the study's
    `folder`, and a cluster without token causes a warning. What it lacks is told while the study waits for it. Raises
    `ConnectionError` that names the address if nothing answers there, if it requires another token, or if Ray does not
    start.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    address, private = _address(address), is_private(address)
    for name, value in _private_settings().items() if private else ():
        os.environ.setdefault(name, value)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        plugins.VARIABLE: os.environ.get(plugins.VARIABLE, ""),
        **({FOLDER_VARIABLE: str(folder)} if folder and not private else {}),
    }
    with template(preloaded, environment) if private and preloaded else nullcontext() as executable:
        with signals.kept():  # Ray's own exits at once, without a word on how to continue
            _connect(
                address,
                num_cpus=cpus if private else None,
                include_dashboard=False if private else None,
                runtime_env={"env_vars": environment, **({"py_executable": executable} if executable else {})},
            )
        import ray

        gcs = "" if address.startswith("ray://") else ray.get_runtime_context().gcs_address
        with _own_session() if private else nullcontext(), signals.hurried(), _connected(gcs, private):
            if gcs and asks_for_token(gcs) is False:
                console.print(
                    f"warning: the Ray at {address} requires no token: whoever reaches its ports can run code as you. "
                    "Start it with RAY_AUTH_MODE=token on every node (`ray get-auth-token --generate` creates one)",
                    style="bold yellow",
                    markup=False,
                )
            yield


def _private_settings() -> dict[str, str]:
    """Settings of a Ray that is for one study on this machine: its ports are on loopback, and have a token."""
    return {
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_idle_worker_killing_time_threshold_ms": f"{_IDLE}000",
        "RAY_enable_worker_prestart": "0",  # as many workers as jobs run at once are enough: each costs a second
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process that asks whether a cloud takes this machine back
    }


@contextmanager
def _own_session() -> Iterator[None]:
    """The temporary folder of the Ray that this process has started is there for the block; those of killed studies
    are removed."""
    session = Path(_node().get_session_dir_path())
    sessions.sweep(session.parent, "session_*")
    sessions.sweep(Path(PLACE), f"{PREFIX}*")
    with sessions.owned(session):
        yield


@contextmanager
def _connected(gcs: str, private: bool) -> Iterator[None]:
    """For the block, this process is a client of the Ray whose control store is at `gcs`, if that is known.

    It ends with that Ray, and tells what the study waits for.
    """
    import ray

    gone, patience = (partial(ended_here, _node()), 0.0) if private else (partial(silent_there, gcs), SILENT)
    try:
        with (
            told_while_waiting(gcs, _tell) if gcs else nullcontext(),
            ends_with_ray(gone, patience) if gcs else nullcontext(),
        ):
            yield
    finally:
        ray.shutdown()


def _node() -> Any:
    """What this process knows of the Ray that it has started."""
    from ray._private import worker  # private, so the pin of Ray guards it

    return worker._global_node


def _tell(line: str) -> None:
    console.print(line, style="yellow", markup=False)


def _connect(address: str, **settings: Any) -> None:
    """Start or join Ray. Raises `ConnectionError` with the remedy, in one line, whatever Ray fails with."""
    import ray

    _reread()
    try:
        _knock(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **settings)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise ConnectionError(
            f"no Ray answers at {address}{_named_by(address)}: start it with `ray up`, or leave --address out. If it "
            "is running, its token is missing here: copy ~/.ray/auth_token from its head node, or set RAY_AUTH_TOKEN"
        ) from error
    except (Exception, SystemExit) as error:  # Ray ends the process where a node does not start
        raise ConnectionError(unstarted(address, str(error) or type(error).__name__)) from error


def _reread() -> None:
    """Let Ray read its settings from the environment again, and the token after them.

    It has read them when it was imported, which a plug-in or a notebook may have done before the settings of this
    module were there. Its control store, a process of its own that reads them now, would reject this process.
    """
    from ray import _raylet  # private, so the pin of Ray guards it

    settings: Any = _raylet  # its types are not all declared
    settings.Config.initialize("")
    settings.AuthenticationTokenLoader.instance().reset_cache()


def unstarted(address: str, said: str) -> str:
    """Why Ray did not start or could not be joined, and what to do about it, in one line."""
    first = said.strip().splitlines()[0] if said.strip() else "it does not say why"
    if address != "local":
        return f"the Ray at {address}{_named_by(address)} cannot be joined ({first}); see `ray status` on its head node"
    if "AF_UNIX" in said or "socket path" in said.lower():
        return f"Ray cannot start: the path of its sockets is too long ({first}); set TMPDIR to a short folder, as /tmp"
    return (
        f"Ray cannot start on this machine ({first}); its logs are in {tempfile.gettempdir()}/ray/session_latest/logs. "
        "If the disk or the shared memory is full, free some, or set TMPDIR to a folder with room and a short path"
    )


def _named_by(address: str) -> str:
    """Where an address is from if it is that of the environment, and none other was given."""
    if address != os.environ.get("RAY_ADDRESS"):
        return ""
    return f" (RAY_ADDRESS={address} in the environment: unset it for a private Ray)"


def _knock(address: str) -> None:
    """Raise `ConnectionError` if nothing listens at host:port, where Ray would wait for a minute and then exit."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(f"{address}: {error}") from error


def asks_for_token(gcs: str) -> bool | None:
    """Whether the Ray whose control store listens at `gcs` (host:port) rejects clients without a token.

    It is contacted as by a stranger, whatever token this process has; None if the answer is inconclusive.
    """
    import grpc
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc  # private, so the pin of Ray guards it

    messages: Any = gcs_service_pb2  # generated: mypy sees nothing in it
    with grpc.insecure_channel(gcs, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            stub.CheckAlive(messages.CheckAliveRequest(), timeout=5)
        except grpc.RpcError as error:
            return True if error.code() == grpc.StatusCode.UNAUTHENTICATED else None  # None: TLS, or nothing there
    return False


def blind_nodes(folder: Path) -> list[str]:
    """The addresses of nodes of the cluster that do not see, within seconds, a file that is now written to `folder`.

    Nodes that die meanwhile, or are too busy to answer within a minute, are not listed; nor are nodes that join later.
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
    """Whether a path exists, or appears within some seconds."""
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
    """Whether a study with this `address` setting starts a private Ray."""
    return _address(address) == "local"


def gpus() -> float:
    """The number of GPUs that the cluster has now."""
    start()
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def _address(address: str) -> str:
    return address or os.environ.get("RAY_ADDRESS", "") or "local"
