"""A smoke test of a model in seconds: prompts, features, packed logits, replies, training steps, a delta on disk."""

from __future__ import annotations

import io
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from study.core.terms import Part
from study.data import synthetic_faces
from study.data.picture import Picture
from study.experiment import parity
from study.model.delta import apply_delta
from study.model.likelihood import token_logps
from study.model.loading import SAMPLE
from study.model.packing import Group, Prompt, logits, pack
from study.model.tensor_files import load_tensors, save_tensors
from study.model.vlm import VLM
from study.training.loop import train
from study.training.schedule import Schedule

SECONDS = 30.0
"""After which no further check starts: about as long as a user at a terminal waits."""
VISUAL: tuple[Part, ...] = ("vision", "projector")
LORA = Schedule(steps=1, learning_rate=1e-3, lora_rank=4)
STEP = Schedule(steps=1, learning_rate=1e-5)


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    name: str
    state: Literal["ok", "failed", "not tried"]
    note: str


def tried(vlm: VLM, group: Group, seconds: float = SECONDS) -> Iterator[Check]:
    """Run all checks on a picture with prompts, until the time is over. They may change the LLM."""
    checks: tuple[tuple[str, Callable[[VLM, Group], str]], ...] = (
        ("prompts equal those of the chat template", parity.prompts),
        ("a picture is encoded", _encoded),
        ("packed logits equal those of transformers", parity.packed_logits),
        ("replies equal those of transformers", parity.same_replies),
        ("the visual module is trained, saved and loaded", _visual),
        ("adapters of the LLM are trained", _adapters),
    )
    started = time.monotonic()
    for name, check in checks:
        if time.monotonic() - started > seconds:
            yield Check(name, "not tried", f"{seconds:g} seconds are over")
            continue
        if check is _adapters and vlm.quantized:
            yield Check(name, "not tried", f"quantized={vlm.quantized}: the LLM is frozen")
            continue
        try:
            with _without_tf32():
                note = check(vlm, group)
            yield Check(name, "ok", note)
        except Exception as error:  # whatever goes wrong in a family nobody has tried is the finding
            yield Check(name, "failed", f"{type(error).__name__}: {error}")


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Within the block a GPU computes float32 as such: TF32 has three digits, fewer than are compared."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32
    cuda.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cuda.allow_tf32, cudnn.allow_tf32 = before


@torch.no_grad()
def _encoded(vlm: VLM, group: Group) -> str:
    pictures = [shown.picture for shown in parity.asked(group) if shown.picture is not None]
    features = vlm.features(vlm.pixels(pictures))
    tokens = features.projected.shape[1]
    if not vlm.across and tokens != vlm.image_tokens:
        raise ValueError(
            f"the picture becomes {tokens} tokens, but prompts have {vlm.image_tokens} placeholders for it"
        )
    if not all(bool(layer.isfinite().all()) for layer in (*features.layers, features.projected)):
        raise ValueError("some features are not finite")
    alone = vlm.features(vlm.pixels(pictures[-1:])).projected
    apart = float((alone[0] - features.projected[-1]).abs().max() / features.projected.abs().max())
    if not apart <= parity.TOLERANCE[vlm.model.dtype]:
        raise ValueError(f"beside others it becomes something else, by {apart:.2g} of the largest")
    return f"{len(features.layers)} vision layers, {tokens} tokens of width {features.projected.shape[2]}"


def _visual(vlm: VLM, group: Group) -> str:
    """A step towards a grey picture; the weights are restored."""
    shown, before = vlm.pixels([_picture(group)]), {n: p.clone() for n, p in vlm.trainable(VISUAL).items()}
    with torch.no_grad():
        grey = vlm.features(vlm.grey()).projected
    train(vlm, VISUAL, STEP, lambda _: (vlm.features(shown).projected - grey).float().square().mean())
    moved = {n: p.detach().clone() for n, p in vlm.trainable(VISUAL).items() if not torch.equal(p, before[n])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "moved.safetensors"
        save_tensors(path, moved)
        apply_delta(vlm, before)
        loaded = load_tensors(path)
    apply_delta(vlm, loaded)
    same = all(torch.equal(vlm.tensors()[name], tensor) for name, tensor in moved.items())
    numbers = sum(int((tensor != before[name]).sum()) for name, tensor in moved.items())
    apply_delta(vlm, before)
    if not moved or not same:
        raise ValueError("no weight changed" if not moved else "the loaded model differs from the saved one")
    return f"{numbers / sum(tensor.numel() for tensor in before.values()):.0%} of the weights moved at a rate of 1e-5"


def _adapters(vlm: VLM, group: Group) -> str:
    llm = vlm.model.get_submodule(vlm.prefixes["llm"])
    weight = next(module.weight for module in llm.modules() if isinstance(module, nn.Linear))
    before, batch = weight.detach().clone(), pack(vlm, [group])
    (loss,) = train(vlm, ("llm",), LORA, lambda _: -token_logps(logits(vlm, batch), batch).mean())
    if torch.equal(weight, before):
        raise ValueError("the adapters changed nothing")
    return f"loss {loss:.3g} nats per token"


def _picture(group: Group) -> Picture:
    assert group.picture is not None
    return group.picture


def group_of(picture: Picture, prompt: str, answer: str) -> Group:
    """Two prompts that share a picture, so that there is something to pack."""
    return Group(picture, (Prompt(prompt, (answer, "unknown")), Prompt("What is this?", (answer,))))


def of_nobody() -> Group:
    """A question about a drawn portrait."""
    rng, file = random.Random(0), io.BytesIO()
    face, view = synthetic_faces.random_face(rng), synthetic_faces.train_view(rng)
    synthetic_faces.draw(face, view, 224, np.random.default_rng(0)).save(file, "PNG")
    return group_of(Picture(file.getvalue(), "a drawn portrait"), SAMPLE, "nobody")
