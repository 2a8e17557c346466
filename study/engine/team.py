"""Ray Train as a way to call a function in several processes of one group, and a team of such that does a job."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from study.core.files import read_json, silent, write_json
from study.core.hashing import Json
from study.engine.jobs import quiet_worker
from study.engine.microbatches import RestartFiner, starting_at
from study.engine.world import spreading, world

PATIENCE = 2 * 3600
"""Seconds that the processes of a group wait for one another: one may have more to generate, and the first writes."""


class WorkersFailed(RuntimeError):
    """What went wrong in one of several workers, in its own words."""


@dataclass(frozen=True)
class Team:
    """Processes on one machine that do a job together, each with a GPU of its own or on the CPU."""

    size: int
    gpus: bool
    logs: Path
    """A folder that every machine sees."""
    sharded: bool = False
    """Whether each keeps but a part of every model."""


def run_on_team(work: Callable[..., object], arguments: tuple[Any, ...], team: Team) -> Json:
    """Let a team do a job, all its members calling `work(*arguments)`; returns what it returned to the first.

    Members share forwards and questions (`study.engine.world`), and only the first writes. If one runs out of memory
    while it trains, all start again with smaller micro-batches. Raises `WorkersFailed` with what else went wrong
    in one of them, which ends all.
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
    """What each process of a team does."""
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
    """Call `work(*arguments)` in each of so many Ray Train workers, which are one process group.

    Each has `cpus` and `gpus`. Where one dies all start anew, at most `restarts` times; where one runs out of memory
    and says how finely forwards are to be cut (`RestartFiner`) they start anew with that. What Ray Train writes stays
    below `logs`. Raises `WorkersFailed` with what else went wrong in one of them, which ends all.
    """
    resources = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
    tried = 1
    with _folder(logs) as folder:
        chunks = folder / "chunks.json"
        while True:
            trainer = TorchTrainer(
                _call,
                train_loop_config={"work": work, "arguments": arguments, "sharded": sharded, "chunks": chunks},
                torch_config=TorchConfig(backend="nccl" if nccl else "gloo", timeout_s=PATIENCE),
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
                trainer.fit()
                return
            except ray.train.TrainingFailedError as error:
                if (wanted := _wanted(chunks)) == tried:
                    raise WorkersFailed(_last_line(error)) from error
                tried = wanted


def _call(config: dict[str, Any]) -> None:
    """What a Ray Train worker does."""
    quiet_worker()
    with spreading(config["sharded"]), _finely(config["chunks"]):
        config["work"](*config["arguments"])


@contextmanager
def _folder(where: Path) -> Iterator[Path]:
    """A folder that every machine sees, for as long as a job takes."""
    where.mkdir(parents=True, exist_ok=True)
    # a shared folder may keep what somebody still holds open (NFS): that must not fail a job that is done
    with tempfile.TemporaryDirectory(prefix="team-", dir=where, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _wanted(chunks: Path) -> int:
    return int(read_json(chunks)) if chunks.exists() else 1


@contextmanager
def _finely(chunks: Path) -> Iterator[None]:
    """While the block lasts, forwards are cut as an earlier run wanted them; what is still too coarse is noted."""
    try:
        with starting_at(_wanted(chunks)):
            yield
    except RestartFiner as short:
        chunks.write_text(str(short.count), encoding="utf-8")
        raise


def _last_line(error: Exception) -> str:
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()
