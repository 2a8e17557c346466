"""Call a function in several processes of one group, by Ray Train, and run a job on such a team."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend  # private, so the pin of Ray guards these
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback

from study.core import signals
from study.core.failures import Failure
from study.core.files import read_json, silent, write_json
from study.core.hashing import Json
from study.engine.failures import Reported, failure_of, killed_for_memory, lost_worker
from study.engine.jobs import quiet_worker
from study.engine.microbatches import RestartFiner, starting_at
from study.engine.world import sharding, world

PATIENCE = 2 * 3600
"""Seconds that the processes of a group wait for one another: one may have more to generate, and only the first writes
files. Generous, so that no slow job is ended, and still an end for one that hangs."""


@dataclass(frozen=True)
class Team:
    """Processes on one machine that do a job together, each with a GPU of its own or on the CPU."""

    size: int
    gpus: bool
    logs: Path
    """A folder that every machine sees."""
    sharded: bool = False
    """Whether models are sharded over the processes."""


class _Backend(_TorchBackend):
    """Ray's own, but gloo connects workers at the addresses at which Ray does.

    By itself gloo takes the address of the host's name, which on many machines (Debian's, say) is one of the loopback.
    """

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Connect the workers."""
        worker_group.execute(_meet_where_ray_does)
        super().on_start(worker_group, backend_config)


@dataclass
class ProcessGroup(TorchConfig):
    """Ray's settings of a process group, with `_Backend`."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """What connects the workers."""
        return _Backend


class _Trainer(TorchTrainer):
    """Ray's own without the process that hands out a dataset of Ray Data: there is none, and each run waits for it."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # mypy sees the trainer of Ray Train 1
        return [each for each in callbacks if not isinstance(each, DatasetsCallback)]


def _meet_where_ray_does() -> None:
    if interface := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def interface_of(address: str) -> str | None:
    """The network interface of this machine that has an address; None if none has."""
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, addresses in interfaces if address in {each.address for each in addresses}), None)


def run_on_team(work: Callable[..., object], arguments: tuple[Any, ...], team: Team) -> Json:
    """Run a job on a team, all of whose members call `work(*arguments)`; returns the result of the first.

    Members share forward passes and questions (`study.engine.world`), and only the first writes files. If one runs out
    of memory during training, all restart with smaller micro-batches. Raises `Reported` for any other error in one of
    them, which ends all.
    """
    with _folder(team.logs) as logs:
        result = logs / "result.json"
        run_workers(
            _member,
            (work, arguments, result),
            team.size,
            cpus=1,
            gpus=int(team.gpus),
            logs=logs,
            nccl=team.gpus,
            sharded=team.sharded,
            placement_strategy="STRICT_PACK",  # on one machine: what one writes the others must see at once
        )
        return read_json(result)


def _member(work: Callable[..., object], arguments: tuple[Any, ...], result: Path) -> None:
    """The work of each process of a team."""
    with nullcontext() if world().rank == 0 else silent():
        returned = work(*arguments)
    if world().rank == 0:
        write_json(result, returned)


def run_workers(
    work: Callable[..., object],
    arguments: tuple[Any, ...],
    workers: int,
    *,
    cpus: float,
    gpus: float,
    logs: Path,
    nccl: bool,
    sharded: bool,
    restarts: int = 0,
    **scaling: Any,
) -> None:
    """Call `work(*arguments)` in each of `workers` Ray Train workers, which form one process group.

    Each has `cpus` and `gpus`. If one dies, all restart, at most `restarts` times; if one runs out of memory and needs
    more micro-batches (`RestartFiner`), all restart with these. Ray Train writes its files below `logs`. Raises
    `Reported` for any other error in one of them, which ends all.
    """
    resources = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
    tried, killed = 1, killed_for_memory()
    with _folder(logs) as folder:
        chunks, failed = folder / "chunks.json", folder / "failed.json"
        while True:
            failed.unlink(missing_ok=True)  # of an attempt whose others asked for smaller micro-batches
            trainer = _Trainer(
                _call,
                train_loop_config={
                    "work": work,
                    "arguments": arguments,
                    "sharded": sharded,
                    "chunks": chunks,
                    "failed": failed,
                },
                torch_config=ProcessGroup(backend="nccl" if nccl else "gloo", timeout_s=PATIENCE),
                scaling_config=ScalingConfig(
                    num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources, **scaling
                ),
                run_config=RunConfig(
                    name=f"workers-{time.time_ns()}",
                    storage_path=str(logs),
                    failure_config=FailureConfig(max_failures=restarts),
                ),
            )
            try:
                with signals.kept():  # Ray Train would answer Ctrl-C by `sys.exit(0)` from now on
                    trainer.fit()
                return
            except ray.train.TrainingFailedError as error:
                if (wanted := _wanted(chunks)) == tried:
                    raise Reported(_failure(failed) or lost_worker(killed, _last_line(error))) from error
                tried, killed = wanted, killed_for_memory()


def _call(config: dict[str, Any]) -> None:
    """The work of a Ray Train worker."""
    quiet_worker()
    with sharding(config["sharded"]), _finely(config["chunks"]), _telling(config["failed"]):
        config["work"](*config["arguments"])


@contextmanager
def _folder(where: Path) -> Iterator[Path]:
    """A temporary folder that every machine sees."""
    where.mkdir(parents=True, exist_ok=True)
    # NFS keeps files that a process still holds open: that must not fail a job that is done
    with tempfile.TemporaryDirectory(prefix="team-", dir=where, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _wanted(chunks: Path) -> int:
    return int(read_json(chunks)) if chunks.exists() else 1


@contextmanager
def _finely(chunks: Path) -> Iterator[None]:
    """Within the block, forward passes are split as an earlier run requested; a further request is noted."""
    try:
        with starting_at(_wanted(chunks)):
            yield
    except RestartFiner as short:
        chunks.write_text(str(short.count), encoding="utf-8")
        raise


@contextmanager
def _telling(failed: Path) -> Iterator[None]:
    """Write down the first failure among the workers: those who waited for one that failed fail after it."""
    try:
        yield
    except RestartFiner:
        raise
    except Exception as error:
        if not failed.exists():
            write_json(failed, failure_of(error).plain)
        raise


def _last_line(error: Exception) -> str:
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()


def _failure(failed: Path) -> Failure | None:
    return Failure(**read_json(failed)) if failed.exists() else None
