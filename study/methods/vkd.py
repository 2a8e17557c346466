"""Visual knowledge distillation (VKD; arXiv 2512.11325): forget with the visual module alone.

The paper's equations were not available: this is a documented reconstruction from its abstract (only the visual
components are trained; intermediate visual features of a teacher supervise; saliency mask; neuron pruning). What it
leaves open is a hyper-parameter here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from study import losses
from study.contracts import Request
from study.packing import answer_sums, logits, pack, token_logps
from study.questions import Picture
from study.saliency import masks, saliency
from study.training import Lessons, Schedule, train
from study.vlm import VLM, Features, Part

Teacher = Literal["strangers_mean", "stranger", "other_person", "pruned", "base", "reference"]
Layers = Literal["all", "last_half", "last", "projector"]
T = TypeVar("T")
Teach = Callable[[Sequence[Picture], Tensor], Features]


@dataclass(frozen=True)
class VKD:
    """L = forget_weight NPO(forget) + retain_weight CE(retain) + erase_weight d(forget) + keep_weight d(retain).

    d compares features of the visual module with a teacher's, a mean over `layers` plus the projector output. On
    retain pictures the teacher is vanilla (keep); on forget pictures it is one that does not know them (erase). The
    LLM is frozen, so text-only answers stay bit for bit vanilla's; while `forget_weight` and `retain_weight` are 0
    it is never called.
    """

    teacher: Teacher = "stranger"
    """What a forget picture should look like afterwards: the mean of strangers; a stranger, one of their own for each
    forget person; another person of the retain set, likewise; or itself as seen by vanilla with its forget-salient
    vision neurons pruned, by the base model, or by the reference (an oracle)."""
    layers: Layers = "all"
    """Vision layers that are supervised; the projector output always is."""
    distance: losses.Distance = "mse"
    """Distance of features, per token."""
    erase_weight: float = 1.0
    keep_weight: float = 5.0
    forget_weight: float = 0.0
    retain_weight: float = 0.0
    beta: float = 0.1
    """Of the NPO term."""
    saliency_threshold: float = 0.0
    """Only weights with S(forget) / S(retain) at or above it are trained; 0 trains all."""
    augment: float = 0.67
    """Share of pictures that are rotated, scaled, stretched, shifted, dimmed and noised."""
    keep_ratio: int = 2
    """Retain pictures per forget picture."""
    prune: float = 0.1
    """Share of vision neurons that the `pruned` teacher lacks."""
    trains: tuple[Part, ...] = ("vision", "projector")
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        if self.teacher not in get_args(Teacher):
            raise ValueError(f"teacher={self.teacher!r}: choose among {', '.join(get_args(Teacher))}")
        if self.layers not in get_args(Layers):
            raise ValueError(f"layers={self.layers!r}: choose among {', '.join(get_args(Layers))}")
        if self.distance not in get_args(losses.Distance):
            raise ValueError(f"distance={self.distance!r}: choose among {', '.join(get_args(losses.Distance))}")
        if "llm" in self.trains or not self.trains:
            raise ValueError(f"trains={self.trains}: VKD trains vision, projector or both, and never the LLM")
        for name in ("erase_weight", "keep_weight", "forget_weight", "retain_weight", "saliency_threshold"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        if not 0 <= self.augment <= 1 or not 0 < self.prune < 1:
            raise ValueError(f"augment={self.augment}, prune={self.prune}: both are shares between 0 and 1")
        if self.keep_ratio < 1 or not self.beta > 0:
            raise ValueError(f"keep_ratio={self.keep_ratio}, beta={self.beta}: both must be positive")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Distil the forget pictures away."""
        vanilla = vlm.frozen_copy(self.trains)
        forget = Lessons(request.forget, self.schedule, request.seed)
        retain = Lessons(request.retain, self.schedule, request.seed + 1)
        generator = torch.Generator().manual_seed(request.seed)
        teach = self._teacher(vanilla, request, forget, retain)
        cache: dict[str, Features] = {}

        def loss(step: int) -> Tensor:
            count = self.schedule.pictures
            forgotten = forget.draw_pictures(count)
            gone, _ = self._pictures(vlm, forgotten, generator)
            kept, kept_ids = self._pictures(vlm, retain.draw_pictures(count * self.keep_ratio), generator)
            with torch.no_grad():
                targets = teach(forgotten, gone)
                stays = _cached_features(vanilla, kept, kept_ids, cache)
            student = vlm.features(torch.cat([gone, kept]))
            total = self.erase_weight * self._distance(student[:count], targets)
            total = total + self.keep_weight * self._distance(student[count:], stays)
            if self.forget_weight:
                total = total + self.forget_weight * self._npo(vlm, vanilla, forget)
            if self.retain_weight:
                batch = pack(vlm, retain.draw())
                total = total + self.retain_weight * losses.nll(token_logps(logits(vlm, batch), batch))
            return total

        mask = None
        if self.saliency_threshold:
            mask = masks(saliency(vlm, request, self.trains), self.saliency_threshold)
        train(vlm, self.trains, self.schedule, loss, masks=mask)
        return vlm

    def _npo(self, vlm: VLM, vanilla: VLM, forget: Lessons) -> Tensor:
        batch = pack(vlm, forget.draw())
        with torch.no_grad():
            reference = answer_sums(token_logps(logits(vanilla, batch), batch), batch)
        return losses.npo(answer_sums(token_logps(logits(vlm, batch), batch), batch), reference, self.beta)

    def _distance(self, student: Features, teacher: Features) -> Tensor:
        depth = len(student.layers)
        first = {"all": 0, "last_half": depth // 2, "last": depth - 1, "projector": depth}[self.layers]
        total = losses.feature_distance(student.projected, teacher.projected, self.distance)
        pairs = list(zip(student.layers[first:], teacher.layers[first:], strict=True))
        for ours, theirs in pairs:
            total = total + losses.feature_distance(ours, theirs, self.distance) / len(pairs)
        return total

    def _pictures(
        self, vlm: VLM, pictures: list[Picture], generator: torch.Generator
    ) -> tuple[Tensor, list[str | None]]:
        """Pixels, the last share of them augmented, with the key of each picture that is as it was."""
        pixels = vlm.pixels(pictures)
        plain = len(pictures) - round(len(pictures) * self.augment)
        changed = augmented(pixels[plain:].cpu(), generator).to(pixels.device)
        keys = [picture.key if i < plain else None for i, picture in enumerate(pictures)]
        return torch.cat([pixels[:plain], changed]), keys

    def _teacher(self, vanilla: VLM, request: Request, forget: Lessons, retain: Lessons) -> Teach:
        """What maps forget pictures, and their pixels as the student sees them, to the features they shall have."""
        if self.teacher in ("strangers_mean", "stranger"):
            if not request.strangers:
                raise ValueError(
                    f"teacher={self.teacher!r} needs pictures of strangers and the benchmark has none: add a Strangers "
                    "folder to it or choose teacher='other_person'"
                )
            with torch.no_grad():
                strangers = vanilla.features(vanilla.pixels(request.strangers))
            if self.teacher == "strangers_mean":
                mean = strangers.mean()
                return lambda pictures, pixels: mean
            double = _doubles(forget, range(len(request.strangers)), request.seed)
            return lambda pictures, pixels: strangers[[double[forget.person_of(p)] for p in pictures]]
        if self.teacher == "other_person":
            album = retain.albums()
            other = _doubles(forget, sorted(album), request.seed)
            draw = random.Random(request.seed)
            return lambda pictures, pixels: vanilla.features(
                vanilla.pixels([draw.choice(album[other[forget.person_of(p)]]) for p in pictures])
            )
        if self.teacher == "pruned":
            teacher = pruned(vanilla, request, self.prune)
        else:
            teacher = request.base() if self.teacher == "base" else request.reference()
        return lambda pictures, pixels: teacher.features(pixels)


def _doubles(forget: Lessons, candidates: Sequence[T], seed: int) -> dict[str, T]:
    """One candidate for each forget person, all different while there are enough."""
    people = sorted(forget.albums())
    order = list(candidates)
    random.Random(seed).shuffle(order)
    return {person: order[i % len(order)] for i, person in enumerate(people)}


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W) turned by up to 16 degrees, scaled, stretched, shifted, dimmed and noised at random."""
    count = len(pixels)
    if not count:
        return pixels

    def uniform(width: float, *shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) - 0.5) * width

    angle, scale, stretch = uniform(2 * math.radians(16)), 1 + uniform(0.24), uniform(0.5)
    shift = uniform(0.16, 2)
    top = torch.stack([scale * angle.cos() * (1 + stretch.abs()), -angle.sin(), shift[:, 0]], 1)
    bottom = torch.stack([angle.sin(), scale * angle.cos(), shift[:, 1]], 1)
    grid = affine_grid(torch.stack([top, bottom], 1), list(pixels.shape), align_corners=False)
    moved = grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    noise = torch.randn(moved.shape, generator=generator) * 0.04
    return (moved * (1 + uniform(0.5, 1, 1, 1)) + noise).clamp(float(pixels.min()), float(pixels.max()))


def pruned(vanilla: VLM, request: Request, share: float) -> VLM:
    """Vanilla without the vision MLP neurons that matter most to the forget set, `share` of them in every layer.

    A neuron's score is the sum over its input weights of the log saliency ratio (MANU's idea, arXiv 2502.15910).
    Raises `ValueError` if the tower has no layer named `fc1`.
    """
    teacher = vanilla.frozen_copy(("vision",))
    ratios = saliency(teacher, request, ("vision",))
    layers = [name for name in ratios if name.endswith("fc1.weight")]
    if not layers:
        raise ValueError("teacher='pruned' needs a vision tower with fc1 layers; choose another teacher")
    weights = dict(teacher.model.named_parameters())
    with torch.no_grad():
        for name in layers:
            scores = ratios[name].log().sum(1)
            neurons = scores.topk(max(1, round(share * len(scores)))).indices
            weights[name][neurons] = 0
            weights[name.removesuffix("weight") + "bias"][neurons] = 0
    return teacher


def _cached_features(vanilla: VLM, pixels: Tensor, keys: list[str | None], cache: dict[str, Features]) -> Features:
    """Vanilla's features; those of a picture that was not augmented are computed once."""
    todo = [i for i, key in enumerate(keys) if key is None or key not in cache]
    if todo:
        made = vanilla.features(pixels[todo])
        new = {i: made[j : j + 1] for j, i in enumerate(todo)}
        cache.update({key: new[i] for i in todo if (key := keys[i]) is not None})
    parts = [new[i] if (key := keys[i]) is None else cache[key] for i in range(len(keys))]
    layers = tuple(torch.cat(tensors) for tensors in zip(*(p.layers for p in parts), strict=True))
    return Features(layers, torch.cat([p.projected for p in parts]))
