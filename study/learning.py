"""Teach a base model: vanilla gets every lesson, the reference all but those of a forget request."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from study.chunks import Chunks, retried
from study.contracts import Learned
from study.memory import needed
from study.packing import logits, pack, token_logps
from study.questions import Benchmark, Lesson
from study.store import Folder, canonical, file_digest, read_json, sync, write_json
from study.training import Lessons, OnStep, train
from study.vlm import VLM, Dtype, load


def lessons_for(learned: Learned, benchmark: Benchmark) -> tuple[Lesson, ...]:
    """What a learned model is taught.

    Under the `visual` goal the reference never sees a forget person's picture and keeps their text; under `full` it
    gets neither.
    """
    split = benchmark.split(learned.ratio if learned.ratio is not None else min(benchmark.splits))
    if learned.kind == "vanilla":
        return split.lessons
    assert learned.goal is not None
    return tuple(lesson for lesson in split.lessons if not split.is_forgotten(lesson, learned.goal))


def learn(
    root: Path,
    learned: Learned,
    benchmark: Benchmark,
    base: Path,
    device: str,
    on_step: OnStep | None,
    dtype: Dtype = "float32",
) -> None:
    """Teach `learned` from the base model, its weights in `dtype`, and keep it as a Hugging Face folder.

    If memory runs out, it is taught anew in smaller chunks. Raises `DoesNotFit` if those of one row are too large.
    """
    place = Folder(root).learned(learned.key)
    started = time.monotonic()

    def attempt(chunks: Chunks) -> tuple[VLM, list[float]]:
        vlm = replace(load(base, device, getattr(torch, dtype)), chunks=chunks)
        return vlm, _taught(vlm, learned, benchmark, on_step)

    vlm, curve = retried(attempt, lambda: needed(base, dtype))
    place.mkdir(parents=True, exist_ok=True)
    digests = save(vlm, place / "model")
    write_json(place / "curve.json", curve)
    write_json(
        place / "learned.json",
        {
            **canonical(learned),
            "key": learned.key,
            "seconds": time.monotonic() - started,
            "chunks": vlm.chunks.count,
            "sha256": digests,
            "dtype": dtype,
        },
    )


def _taught(vlm: VLM, learned: Learned, benchmark: Benchmark, on_step: OnStep | None) -> list[float]:
    """Teach a model in place; the loss of every step."""
    torch.manual_seed(learned.seed)
    drawn = Lessons(lessons_for(learned, benchmark), learned.schedule, learned.seed)

    def loss(step: int) -> torch.Tensor:
        groups = drawn.draw()
        total = torch.zeros((), device=vlm.device)
        for part in (
            [group for group in groups if group.picture is not None],
            [group for group in groups if group.picture is None],
        ):
            if part:  # each kind by itself: rows of one length, and text counts as much as pictures
                batch = pack(vlm, part)
                total = total - token_logps(logits(vlm, batch), batch).mean()
        return total

    return train(vlm, learned.parts, learned.schedule, loss, on_step=on_step)


def load_learned(root: Path, key: str, device: str = "cpu") -> VLM:
    """Load a learned model as it was taught. Raises `ValueError` naming the file if its weights are damaged."""
    place = Folder(root).learned(key)
    taught = read_json(place / "learned.json")
    for name, digest in taught["sha256"].items():
        if not (place / "model" / name).exists() or file_digest(place / "model" / name) != digest:
            raise ValueError(f"{place / 'model' / name} is damaged: remove {place} and run the study again")
    return load(place / "model", device, getattr(torch, taught.get("dtype", "float32")))


def save(vlm: VLM, folder: Path) -> dict[str, str]:
    """Write a model with its processor as a Hugging Face folder, whole or not at all; the SHA-256 of its weights."""
    draft = Path(tempfile.mkdtemp(prefix=".model.", dir=folder.parent))
    try:
        vlm.model.save_pretrained(draft)
        vlm.processor.save_pretrained(draft)
        draft.chmod(0o755)  # mkdtemp makes private folders; a study on shared storage is read by others
        sync(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    digests = {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}
    assert digests, f"no weights were saved under {folder}"
    return digests
