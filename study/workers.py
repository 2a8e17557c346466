"""Ray Train: teach models on workers of the cluster, several side by side, or one at a time by all workers together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from study.cluster import quiet_worker
from study.contracts import Learned
from study.learning import learn
from study.parallel import ALONE, world
from study.plan import Failed
from study.store import Folder, read_json, write_json
from study.training import OnStep
from study.trial import Bench

OnProgress = Callable[[Learned, int], None]


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
    the weights spread over them if `sharded`. Where a worker dies the run begins once more, and what was already
    learned is not learned again. `on_progress(model, steps)` is called now and then.
    """
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"bench": bench, "models": models, "together": together, "sharded": sharded},
        torch_config=TorchConfig(backend="nccl" if together and gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus},
        ),
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
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise Failed(f"learning failed: {lines[-1].strip()}") from error
    except SystemExit as stopped:  # how Ray Train answers Ctrl-C
        raise KeyboardInterrupt from stopped
    finally:
        stop.set()
        watcher.join()


def _worker(config: dict[str, Any]) -> None:
    """What a Ray Train worker does: teach its share of the models, or of each model, and note how far each is."""
    quiet_worker()
    bench: Bench = config["bench"]
    among, models = world(sharded=config["sharded"]), config["models"]
    if not config["together"]:
        torch.distributed.destroy_process_group()  # in a group, transformers would save the model of rank 0 alone
        among, models = ALONE, among.share(models)
    for model in models:
        if among.rank == 0:
            _progress_file(bench.folder, model).unlink(missing_ok=True)  # a run that was killed left one
        if among.decides(not (bench.folder.learned(model.key) / "learned.json").exists()):
            told = _noting(bench.folder, model)
            learn(bench.root, model, bench.benchmark, bench.base, bench.device, told, bench.dtype, among)


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
