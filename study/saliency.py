"""Which weights matter to what is to be forgotten: squared-gradient ratios, computed once, thresholded per trial.

MMUnlearner (arXiv 2502.11051, section 3.2): S(D) = E[(dL_D/dw)^2], m = 1[S(forget) / (S(retain) + eps) >= threshold].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from study import losses
from study.contracts import Request
from study.packing import logits, pack, token_logps
from study.questions import Lesson
from study.store import content_key
from study.training import Lessons, Schedule
from study.vlm import VLM, Part, load_tensors, save_tensors

EPSILON = 1e-15  # as in the released code of MMUnlearner
BATCHES = 16
SEED = 0  # not the trial's: trials of every seed share what the first of them finds


def saliency(vlm: VLM, request: Request, parts: Sequence[Part]) -> dict[str, Tensor]:
    """S(forget) / S(retain) per weight of `parts`, kept in the request's cache for every later trial."""
    path = _cached(request.cache, parts)
    try:
        return {name: ratio.to(vlm.device) for name, ratio in load_tensors(path).items()}
    except (FileNotFoundError, ValueError):  # not there yet, damaged, or just being written by another worker
        forget = squared_gradients(vlm, parts, request.forget, SEED)
        retain = squared_gradients(vlm, parts, request.retain, SEED)
        ratios = {name: (forget[name] + EPSILON) / (retain[name] + EPSILON) for name in forget}
        save_tensors(path, ratios)
        return ratios


def squared_gradients(vlm: VLM, parts: Sequence[Part], lessons: Sequence[Lesson], seed: int) -> dict[str, Tensor]:
    """The diagonal Fisher estimate: the mean over batches of the squared gradient of the cross-entropy.

    Only lessons with a picture are drawn: the gradient of a text lesson in the visual module is zero.
    """
    pictured = [lesson for lesson in lessons if lesson.picture is not None]
    drawn = Lessons(pictured, replace(Schedule(), pictures=8), seed)
    weights = vlm.trainable(parts)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    for _ in range(BATCHES):
        batch = pack(vlm, drawn.draw())
        loss = losses.nll(token_logps(logits(vlm, batch), batch))
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for (name, _), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.square() / BATCHES
    for weight in weights.values():
        weight.requires_grad_(False)
    return total


def masks(ratios: Mapping[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """1 where the ratio reaches the threshold.

    Raises `ValueError` with the largest ratio there is if the mask would select nothing.
    """
    selected = {name: (ratio >= threshold).to(ratio.dtype) for name, ratio in ratios.items()}
    if not any(bool(mask.any()) for mask in selected.values()):
        largest = max(float(ratio.max()) for ratio in ratios.values())
        raise ValueError(f"saliency_threshold={threshold:g} selects no weight: the largest ratio is {largest:.4g}")
    return selected


def _cached(cache: Path, parts: Sequence[Part]) -> Path:
    return cache / f"saliency-{content_key(tuple(parts))}.safetensors"
