"""Ray Train: teach models on workers of the cluster, side by side or each by all of them, and let a team do a job."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from study.chunks import TooCoarse, begun_with
from study.cluster import quiet_worker
from study.contracts import Learned
from study.learning import learn
from study.parallel import ALONE, spreading, world
from study.plan import Failed
from study.store import Folder, Json, read_json, silent, write_json
from study.training import OnStep
from study.trial import Bench

OnProgress = Callable[[Learned, int], None]
PATIENCE = 2 * 3600
"""Seconds that processes of a team wait for one another: one may have more to generate, and the first writes."""


def learn_all(
    bench: Bench,
    models: Sequence[Learned],
    *,
    workers: int,
    cpus: float,
    gpus: float,
    on_progress: OnProgress,
    together: bool = False,
    sharded: bool = False,
) -> None:
    """Teach models side by side: one Ray Train run whose workers share the models out among themselves.

    Each worker has `cpus` and `gpus` and teaches one model after the other; nothing is synchronised between them,
    unless they teach `together`: then all teach the first model, then the second, each a share of every batch, with
    the weights spread over them if `sharded`. Where a worker dies the run begins once more, and where one of those that
    teach together runs out of memory in finer chunks; what was already learned is not learned again.
    `on_progress(model, steps)` is called now and then.
    """

    def trainer(chunks: Path) -> TorchTrainer:
        return TorchTrainer(
            _worker,
            train_loop_config={
                "bench": bench,
                "models": models,
                "together": together,
                "sharded": sharded,
                "chunks": chunks,
            },
            torch_config=TorchConfig(backend="nccl" if together and gpus else "gloo"),
            scaling_config=_each(workers, cpus, gpus),
            run_config=RunConfig(
                name=f"learn-{time.time_ns()}",
                storage_path=str(bench.root / "ray"),
                failure_config=FailureConfig(max_failures=1),
            ),
        )

    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(bench.folder, models, stop, on_progress), daemon=True)
    watcher.start()
    try:
        with _folder(bench.root / "ray") as folder:
            _fit(trainer, folder / "chunks.json")
    except ray.train.TrainingFailedError as error:
        raise Failed(f"learning failed: {_last_line(error)}") from error
    except SystemExit as stopped:  # how Ray Train answers Ctrl-C
        raise KeyboardInterrupt from stopped
    finally:
        stop.set()
        watcher.join()


def _worker(config: dict[str, Any]) -> None:
    """What a Ray Train worker does: teach its share of the models, or of each model, and note how far each is."""
    quiet_worker()
    with spreading(config["sharded"]), _finely(config["chunks"]):
        _teach(config["bench"], config["models"], together=config["together"])


def _teach(bench: Bench, models: Sequence[Learned], *, together: bool) -> None:
    among = world()
    if not together:
        torch.distributed.destroy_process_group()  # in a group, transformers would save the model of rank 0 alone
        among, models = ALONE, among.share(models)
    for model in models:
        if among.rank == 0:
            _progress_file(bench.folder, model).unlink(missing_ok=True)  # a run that was killed left one
        done = bench.folder.learned(model.key) / "learned.json"
        if not among.told(done.exists):
            learn(
                *(bench.root, model, bench.benchmark, bench.base, bench.device, _noting(bench.folder, model)),
                dtype=bench.dtype,
                attention=bench.attention,
                quantized=bench.quantized,
            )


@dataclass(frozen=True)
class Team:
    """Processes on one machine that do a job together, each with a GPU of its own or on the CPU."""

    size: int
    gpus: bool
    logs: Path
    """A folder that every machine sees."""
    sharded: bool = False
    """Whether each keeps but a part of every model."""


def together(work: Callable[..., object], arguments: tuple[Any, ...], team: Team) -> Json:
    """Let a team do a job, all its members calling `work(*arguments)`; returns what it returned to the first.

    Members share forwards and questions (`study.parallel`), and the first alone writes. If one runs out of memory while
    it trains, all start anew in finer chunks. Raises `RuntimeError` with what else went wrong in one of them, which
    ends all.
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
        with begun_with(_wanted(chunks)):
            yield
    except TooCoarse as short:
        chunks.write_text(str(short.count), encoding="utf-8")
        raise


def _last_line(error: Exception) -> str:
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()


def _noting(folder: Folder, model: Learned) -> OnStep:
    path, every = _progress_file(folder, model), max(1, model.schedule.steps // 20)

    def on_step(done: int, loss: float) -> None:
        if done % every == 0:
            write_json(path, {"steps": done, "loss": loss})

    return on_step


def _progress_file(folder: Folder, model: Learned) -> Path:
    return folder.learned(model.key) / "progress.json"


def _watch(folder: Folder, models: Sequence[Learned], stop: threading.Event, on_progress: OnProgress) -> None:
    """Relay the progress files: a report to Ray Train would hold the worker up until the controller polls it."""
    while not stop.wait(1.0):
        for model in models:
            path = _progress_file(folder, model)
            if path.exists():
                on_progress(model, int(read_json(path)["steps"]))
