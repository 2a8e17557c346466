"""Teach a base model: vanilla gets every lesson, the reference all but those of a forget request."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from study.answers import cross_entropy
from study.chunks import Chunks, retried
from study.contracts import Learned
from study.deltas import apply_delta
from study.memory import needed
from study.packing import pack
from study.parallel import World, world
from study.quantized import Quantized, as_numbers
from study.questions import Benchmark, Lesson
from study.spread import whole
from study.store import Damaged, Folder, canonical, file_digest, read_json, sync, write_json
from study.training import Lessons, OnStep, train
from study.vlm import VLM, Attention, Dtype, Part, load


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
    attention: Attention = "sdpa",
    quantized: Quantized = "",
) -> None:
    """Teach `learned` from the base model, its weights in `dtype`, and keep it as a Hugging Face folder; it will be
    loaded with the same `attention`, and then `quantized`.

    The processes of one world share every batch, and every tensor too where models are spread; the first tells and
    keeps. If memory runs out it is taught anew in smaller chunks, by several after `TooCoarse`. Raises `DoesNotFit` if
    those of one row are too large, or if the model is spread.
    """
    started, here = time.monotonic(), world()
    told = on_step if here.rank == 0 else None

    def attempt(chunks: Chunks) -> tuple[VLM, list[float]]:
        vlm = replace(load(base, device, getattr(torch, dtype), attention), chunks=chunks)
        return vlm, _taught(vlm, learned, benchmark, told)

    vlm, curve = retried(attempt, lambda: needed(base, dtype))
    if vlm.spread is not None:
        vlm = _gathered(vlm, learned.parts, base, here)
    if here.rank == 0:
        _keep(root, learned, vlm, curve, started, {"dtype": dtype, "attention": attention, "quantized": quantized})
    here.wait()


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
                total = total + cross_entropy(vlm, pack(vlm, part))
        return total

    return train(vlm, learned.parts, learned.schedule, loss, on_step=on_step)


def _gathered(vlm: VLM, parts: Sequence[Part], base: Path, here: World) -> VLM:
    """A model that was spread, in one piece, in the first process's main memory: the base, with what was taught."""
    plain = load(base, "cpu", vlm.model.dtype, vlm.attention, whole=True) if here.rank == 0 else vlm
    for name, parameter in vlm.trainable(parts).items():
        tensor = whole(parameter.detach())
        if here.rank == 0:
            apply_delta(plain, {name: tensor})
    return plain


def _keep(
    root: Path, learned: Learned, vlm: VLM, curve: list[float], started: float, loading: Mapping[str, str]
) -> None:
    """Write the model, its loss curve and last the record, which says that all is there."""
    place = Folder(root).learned(learned.key)
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
            "processes": world().size,
            "sha256": digests,
            **loading,
        },
    )


def model_folder(root: Path, key: str) -> Path:
    """Where a learned model lies."""
    return Folder(root).learned(key) / "model"


def load_learned(root: Path, key: str, device: str = "cpu", *, checked: bool = True, as_taught: bool = False) -> VLM:
    """Load a learned model as its study asks for it; or `as_taught`, which is unquantised and in one piece.


    Raises `ValueError` naming the file if it is `checked` and damaged.
    """
    place = Folder(root).learned(key)
    taught = read_json(place / "learned.json")
    for name, digest in taught["sha256"].items() if checked else ():
        if not (place / "model" / name).exists() or file_digest(place / "model" / name) != digest:
            raise Damaged(f"{place / 'model' / name} is damaged: remove {place} and run the study again")
    dtype, attention = taught.get("dtype", "float32"), taught.get("attention", "sdpa")
    quantized: Quantized = "" if as_taught else taught.get("quantized", "")
    return load(model_folder(root, key), device, getattr(torch, dtype), attention, quantized, whole=as_taught)


def save(vlm: VLM, folder: Path) -> dict[str, str]:
    """Write a model with its processor as a Hugging Face folder, whole or not at all; the SHA-256 of its weights.

    Codes are written as the numbers that they stand for.
    """
    draft = Path(tempfile.mkdtemp(prefix=".model.", dir=folder.parent))
    try:
        vlm.model.save_pretrained(draft, state_dict=as_numbers(vlm.model) if vlm.quantized else None)
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
