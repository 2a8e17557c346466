"""Ray Train: teach models on workers of the cluster, side by side or each by all of them, and let a team do a job."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from study.core.files import read_json, silent, write_json
from study.core.hashing import Json
from study.engine.jobs import quiet_worker
from study.engine.microbatches import RestartFiner, starting_at
from study.engine.world import spreading, world

PATIENCE = 2 * 3600
"""Seconds that processes of a team wait for one another: one may have more to generate, and the first writes."""


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
    while it trains, all start again with smaller micro-batches. Raises `RuntimeError` with what else went wrong in
    one of them, which ends all.
    """
    with _folder(team.logs) as logs:
        result = logs / "result.json"

        def trainer(chunks: Path) -> TorchTrainer:
            return TorchTrainer(
                _member,
                train_loop_config={
                    "work": work,
                    "arguments": arguments,
                    "sharded": team.sharded,
                    "chunks": chunks,
                    "result": result,
                },
                torch_config=TorchConfig(backend="nccl" if team.gpus else "gloo", timeout_s=PATIENCE),
                # on one machine: what one writes the others must see at once
                scaling_config=_each(team.size, 1, int(team.gpus), placement_strategy="STRICT_PACK"),
                run_config=RunConfig(name=f"job-{time.time_ns()}", storage_path=str(logs)),
            )

        try:
            _fit(trainer, logs / "chunks.json")
        except ray.train.TrainingFailedError as error:
            raise RuntimeError(_last_line(error)) from error
        return read_json(result)


def _member(config: dict[str, Any]) -> None:
    """What each process of a team does."""
    quiet_worker()
    silence = nullcontext() if world().rank == 0 else silent()
    with silence, spreading(config["sharded"]), _finely(config["chunks"]):
        result = config["work"](*config["arguments"])
    if world().rank == 0:
        write_json(config["result"], result)


def _each(workers: int, cpus: float, gpus: float, **how: Any) -> ScalingConfig:
    """What Ray is asked for: so much for each of so many processes."""
    resources = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
    return ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources, **how)


@contextmanager
def _folder(where: Path) -> Iterator[Path]:
    """A folder that every machine sees, for as long as a job takes."""
    where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="team-", dir=where) as folder:
        yield Path(folder)


def _fit(trainer: Callable[[Path], TorchTrainer], chunks: Path) -> None:
    """Run a trainer, and one more whenever a process ran out of memory and wrote down how finely to begin anew."""
    tried = 1
    while True:
        try:
            trainer(chunks).fit()
            return
        except ray.train.TrainingFailedError:
            if (wanted := _wanted(chunks)) == tried:
                raise
            tried = wanted


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
