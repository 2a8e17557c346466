"""Which weights matter to what is to be forgotten: squared-gradient ratios, computed once, thresholded per trial.

MMUnlearner (arXiv 2502.11051, section 3.2): S(D) = E[(dL_D/dw)^2], m = 1[S(forget) / (S(retain) + eps) >= threshold].
As in its released code the expectation is over batches, not lessons: the square of a mean gradient, not the mean of
squares, which is the Fisher information only for batches of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from study.contracts import Request
from study.core.errors import Refused
from study.core.hashing import content_key
from study.core.terms import Part
from study.data.benchmark import Lesson
from study.engine.sharded_tensors import full_tensor, gradients, shard_like
from study.engine.world import world
from study.methods._neurons import MLP
from study.model.likelihood import cross_entropy
from study.model.packing import pack
from study.model.tensor_files import load_tensors, save_tensors
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.schedule import Schedule

EPSILON = 1e-15  # as in the released code of MMUnlearner
BATCHES = 16
"""Batches over which squared gradients are averaged, 128 groups in all. Chosen by trial on the tiny study."""
GROUPS = 8  # of a batch
SEED = 0  # not the trial's: trials of every seed share what the first of them finds


def saliency(vlm: VLM, request: Request, parts: Sequence[Part], *, texts: int = 0) -> dict[str, Tensor]:
    """S(forget) / S(retain) per weight of `parts`, kept in the request's cache for every later trial.

    `texts` is as in `squared_gradients`.
    """
    path, weights = _cached(request, parts, texts), vlm.trainable(parts)
    kept = _kept(path)
    everywhere = all(world().all_gather_objects(kept is not None))
    if kept is not None and everywhere:
        ratios = {name: shard_like(ratio, weights[name]) for name, ratio in kept.items()}
    else:
        forget = squared_gradients(vlm, parts, request.forget, SEED, texts=texts)
        retain = squared_gradients(vlm, parts, request.retain, SEED, texts=texts)
        ratios = {name: (forget[name] + EPSILON) / (retain[name] + EPSILON) for name in forget}
        save_tensors(path, {name: full_tensor(ratio) for name, ratio in ratios.items()})
    world().broadcast_([ratios[name] for name in sorted(ratios)])
    return ratios


def _kept(path: Path) -> dict[str, Tensor] | None:
    try:
        return load_tensors(path)
    except (FileNotFoundError, ValueError):  # not there yet, damaged, or just being written by another worker
        return None


def squared_gradients(
    vlm: VLM, parts: Sequence[Part], lessons: Sequence[Lesson], seed: int, *, texts: int = 0
) -> dict[str, Tensor]:
    """The mean over batches of the squared gradient of the cross-entropy.

    A batch is eight groups, `texts` of which are text lessons where there are both kinds. None by default: a text
    lesson has no gradient in the visual module, and there only makes that of the pictures beside it smaller.
    """
    taken = lessons if texts else [lesson for lesson in lessons if lesson.picture is not None]
    if len({lesson.picture is None for lesson in taken}) < 2:
        texts = 0
    drawn = Lessons(taken, replace(Schedule(), pictures=GROUPS - texts, texts=texts), seed)
    weights = vlm.trainable(parts)
    total = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    for _ in range(BATCHES):
        loss = cross_entropy(vlm, pack(vlm, drawn.draw()))
        for name, gradient in zip(weights, gradients(loss, list(weights.values())), strict=True):
            if gradient is not None:
                total[name] += gradient.float().square() / BATCHES
    for weight in weights.values():
        weight.requires_grad_(False)
    return total


def masks(ratios: Mapping[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """1 where the ratio reaches the threshold.

    Raises `Refused` with the largest ratio there is if the mask would select nothing.
    """
    selected = {name: (ratio >= threshold).to(ratio.dtype) for name, ratio in ratios.items()}
    if not ratios:
        raise Refused("the saliency mask covers no weight: no lesson reaches the parts that are trained")
    if not any(bool(full_tensor(mask.any())) for mask in selected.values()):
        largest = max(float(full_tensor(ratio.max())) for ratio in ratios.values())
        raise Refused(f"saliency_threshold={threshold:g} selects no weight: the largest ratio is {largest:.4g}")
    return selected


def salient_neurons(mlp: MLP, ratios: Mapping[str, Tensor], share: float) -> Tensor:
    """The indices of the neurons of an MLP that matter most to what is to be forgotten, `share` of them.

    A neuron's score is the sum over its input weights of the log ratio (MANU's idea, arXiv 2502.15910).
    """
    into = [full_tensor(ratios[f"{layer}.weight"]) for layer in mlp.layers[:-1]]
    scores = torch.stack([ratio.log().sum(1) for ratio in into]).sum(0)
    world().broadcast_([scores])
    return scores.topk(max(1, round(share * len(scores)))).indices


def neuron_masks(chosen: Sequence[MLP], ratios: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """1 at the weights into and out of those neurons of each MLP, 0 at its others; only these weights are named."""
    found: dict[str, Tensor] = {}
    for mlp in chosen:
        neurons = salient_neurons(mlp, ratios, share)
        for name, layer in zip(mlp.layers, (*mlp.reads, mlp.writes), strict=True):
            into = layer is not mlp.writes  # neurons are its outputs, so they have a bias as well
            for kind, tensor in layer.named_parameters():
                if into or kind == "weight":
                    mask = torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)
                    mask[neurons if into else (slice(None), neurons)] = 1
                    found[f"{name}.{kind}"] = shard_like(mask, tensor)
    return found


def _cached(request: Request, parts: Sequence[Part], texts: int) -> Path:
    """One file for each set of parts and kind of lessons: a request that was narrowed shares the cache of the whole."""
    what: object = tuple(parts)
    if texts:
        kinds = [sorted({lesson.picture is None for lesson in side}) for side in (request.forget, request.retain)]
        what = (tuple(parts), texts, kinds)
    return request.cache / f"saliency-{content_key(what)}.safetensors"
