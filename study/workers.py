"""Ray Train: teach models on workers of the cluster, several side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from study.cluster import quiet_worker
from study.contracts import Learned
from study.learning import learn
from study.store import Folder, read_json, write_json
from study.trial import Bench

OnProgress = Callable[[Learned, int], None]


def learn_all(bench: Bench, models: Sequence[Learned], *, cpus: float, gpus: float, on_progress: OnProgress) -> None:
    """Teach every model that is not on disk, all side by side, each by one Ray Train run.

    `on_progress(model, steps done)` is called now and then. Raises what a run raised after the others have ended.
    """
    missing = [m for m in models if not (bench.folder.learned(m.key) / "learned.json").exists()]
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(bench.folder, missing, stop, on_progress), daemon=True)
    watcher.start()
    try:
        with ThreadPoolExecutor(max_workers=max(len(missing), 1)) as pool:
            runs = [pool.submit(_fit, bench, model, cpus, gpus) for model in missing]
        for run in runs:
            run.result()
    finally:
        stop.set()
        watcher.join()


def _fit(bench: Bench, model: Learned, cpus: float, gpus: float) -> None:
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"bench": bench, "model": model},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=1, use_gpu=gpus > 0, resources_per_worker=_needs(cpus, gpus)),
        run_config=RunConfig(name=f"learn-{model.key}-{time.time_ns()}", storage_path=str(bench.root / "ray")),
    )
    trainer.fit()


def _needs(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def _worker(config: dict[str, Any]) -> None:
    """What a Ray Train worker does: teach one model and write down how far it is."""
    quiet_worker()
    bench, model = config["bench"], config["model"]
    every = max(1, model.schedule.steps // 20)
    progress = _progress_file(bench.folder, model)

    def on_step(done: int, loss: float) -> None:
        if done % every == 0:
            write_json(progress, {"steps": done, "loss": loss})

    learn(bench.root, model, bench.benchmark, bench.base, bench.device, on_step)
    ray.train.report({"steps": model.schedule.steps})


def _progress_file(folder: Folder, model: Learned) -> Path:
    return folder.learned(model.key) / "progress.json"


def _watch(folder: Folder, models: Sequence[Learned], stop: threading.Event, on_progress: OnProgress) -> None:
    """Relay the progress files: a report to Ray Train would hold the worker up until the controller polls it."""
    while not stop.wait(1.0):
        for model in models:
            path = _progress_file(folder, model)
            if path.exists():
                on_progress(model, int(read_json(path)["steps"]))
