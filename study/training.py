"""The one training loop, its schedule, and how lessons are drawn. Learning, unlearning and relearning all use it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from study.packing import Group, Prompt
from study.questions import Lesson, Picture
from study.vlm import VLM, Part

Decay = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bfloat16"]


class Diverged(RuntimeError):
    """Training left the numbers that mean anything; the trial is recorded as diverged and never wins."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"diverged at step {step}: {what}")
        self.step, self.what = step, what

    def __reduce__(self) -> tuple[type[Diverged], tuple[int, str]]:
        return type(self), (self.step, self.what)


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and on how much a model is trained. A group is one picture, or none, with its lessons."""

    steps: int = 100
    """Optimiser steps."""
    learning_rate: float = 2e-5
    """Peak learning rate of AdamW."""
    pictures: int = 4
    """Pictures per step."""
    lessons_per_picture: int = 8
    """Lessons drawn of each picture."""
    texts: int = 0
    """Groups of text-only lessons per step, where the set has any."""
    lessons_per_text: int = 8
    """Lessons in each text-only group."""
    warmup: int = 0
    """Steps of linear warm-up."""
    decay: Decay = "linear"
    """How the learning rate falls to 3 % of its peak."""
    beta2: float = 0.999
    """AdamW's second moment decay."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay; must be 0 where a mask protects weights."""
    clip: float = 1.0
    """Largest gradient norm."""
    accumulate: int = 1
    """Batches per optimiser step."""
    precision: Precision = "float32"
    """Autocast of the forward pass."""
    worst_loss: float = 1e4
    """A loss whose absolute value passes this has diverged."""

    def __post_init__(self) -> None:
        for name in ("steps", "pictures", "lessons_per_picture", "lessons_per_text", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use at least 1")
        for name in ("learning_rate", "weight_decay"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name}={getattr(self, name)}: use a finite number that is not negative")
        if not 0 < self.beta2 < 1:
            raise ValueError(f"beta2={self.beta2}: use a number between 0 and 1")
        for name in ("texts", "warmup"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        for name in ("clip", "worst_loss"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: use a positive number")
        for name, choices in (("decay", get_args(Decay)), ("precision", get_args(Precision))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose among {', '.join(choices)}")

    def rate(self, step: int) -> float:
        """The learning rate at a step (from 0), as a share of the peak."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        done = step / self.steps
        fall = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[self.decay]
        return warm * (0.03 + 0.97 * fall)


class Lessons:
    """An endless, seeded stream of groups: pictures in shuffled rounds, a fresh draw of lessons each time.

    A set smaller than a batch is repeated. Raises `ValueError` if it is empty.
    """

    def __init__(self, lessons: Sequence[Lesson], schedule: Schedule, seed: int) -> None:
        if not lessons:
            raise ValueError("there are no lessons to train on: the set is empty")
        self.schedule = schedule
        self.random = random.Random(seed)
        by_picture: dict[Picture, list[Lesson]] = {}
        for lesson in lessons:
            if lesson.picture is not None:
                by_picture.setdefault(lesson.picture, []).append(lesson)
        self.by_picture = by_picture
        self.texts = [lesson for lesson in lessons if lesson.picture is None]
        self._rounds = self._shuffled()

    def draw(self) -> list[Group]:
        """The groups of one batch: those with pictures first."""
        schedule, groups = self.schedule, []
        if self.by_picture:
            for picture in self.draw_pictures(schedule.pictures):
                groups.append(Group(picture, self._prompts(self.by_picture[picture], schedule.lessons_per_picture)))
        if self.texts:
            texts = schedule.texts if self.by_picture else max(schedule.texts, schedule.pictures)
            groups += [Group(None, self._prompts(self.texts, schedule.lessons_per_text)) for _ in range(texts)]
        return groups

    def draw_pictures(self, count: int) -> list[Picture]:
        """The next `count` pictures. Raises `ValueError` if the set has none."""
        if not self.by_picture:
            raise ValueError("the set has no lesson with a picture")
        return [next(self._rounds) for _ in range(count)]

    def person_of(self, picture: Picture) -> str:
        """Whose picture it is."""
        return self.by_picture[picture][0].person

    def albums(self) -> dict[str, list[Picture]]:
        """The pictures of each person."""
        found: dict[str, list[Picture]] = {}
        for picture in self.by_picture:
            found.setdefault(self.person_of(picture), []).append(picture)
        return found

    def _shuffled(self) -> Iterator[Picture]:
        pictures = list(self.by_picture)
        while True:
            self.random.shuffle(pictures)
            yield from pictures

    def _prompts(self, lessons: Sequence[Lesson], count: int) -> tuple[Prompt, ...]:
        drawn = self.random.sample(lessons, min(count, len(lessons)))
        return tuple(Prompt(lesson.prompt, (lesson.answer,)) for lesson in drawn)


Loss = Callable[[int], Tensor]
OnStep = Callable[[int, float], None]


def train(
    vlm: VLM,
    parts: Sequence[Part],
    schedule: Schedule,
    loss: Loss,
    *,
    masks: Mapping[str, Tensor] | None = None,
    on_step: OnStep | None = None,
) -> list[float]:
    """Minimise `loss(step)` over the parameters of `parts`, in place; returns the loss of every step.

    As `steps`, whose errors it raises; `on_step(done, loss)` is called after every optimiser step.
    """
    curve = []
    for done, value in steps(vlm, parts, schedule, loss, masks=masks):
        curve.append(value)
        if on_step:
            on_step(done, value)
    return curve


def steps(
    vlm: VLM,
    parts: Sequence[Part],
    schedule: Schedule,
    loss: Loss,
    *,
    masks: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[int, float]]:
    """Train as `train` does, one optimiser step at a time; yields (steps done, loss) with the model ready to score.

    `masks` maps parameter names to 0/1 tensors: an entry under 0 keeps its value bit for bit. Raises `Diverged`
    within the step in which loss or gradient stop being finite or the loss passes `schedule.worst_loss`, and
    `ValueError` if nothing would be trained.
    """
    if not parts:
        raise ValueError("no part is trained: name at least one of vision, projector and llm")
    trained = vlm.trainable(parts)
    if masks is not None:
        if schedule.weight_decay:
            raise ValueError(f"weight_decay={schedule.weight_decay} would move masked weights: set it to 0")
        trained = {name: p for name, p in trained.items() if name in masks and bool(masks[name].any())}
    if not trained:
        raise ValueError(f"no parameter of {', '.join(parts)} is left to train: lower the saliency threshold")
    for name, parameter in vlm.model.named_parameters():
        parameter.requires_grad_(name in trained)
    optimizer = torch.optim.AdamW(
        trained.values(), lr=schedule.learning_rate, betas=(0.9, schedule.beta2), weight_decay=schedule.weight_decay
    )
    try:
        for step in range(schedule.steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * schedule.rate(step)
            vlm.model.train()
            value = _step(vlm, trained, schedule, loss, step, optimizer, masks)
            vlm.model.eval()
            yield step + 1, value
    finally:
        vlm.model.eval()
        for parameter in trained.values():
            parameter.requires_grad_(False)
            parameter.grad = None


def _step(
    vlm: VLM,
    trained: Mapping[str, torch.nn.Parameter],
    schedule: Schedule,
    loss: Loss,
    step: int,
    optimizer: torch.optim.Optimizer,
    masks: Mapping[str, Tensor] | None,
) -> float:
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for _ in range(schedule.accumulate):
        with torch.autocast(vlm.device.type, torch.bfloat16, enabled=schedule.precision == "bfloat16"):
            value = loss(step) / schedule.accumulate
        total += float(value.detach())
        if not math.isfinite(total) or abs(total) > schedule.worst_loss:
            raise Diverged(step, f"the loss is {total:.4g} (limit {schedule.worst_loss:g})")
        if value.requires_grad:
            value.backward()
    for name, parameter in trained.items():
        if masks is not None and parameter.grad is not None:
            parameter.grad.mul_(masks[name])
    norm = torch.nn.utils.clip_grad_norm_(trained.values(), schedule.clip)
    if not torch.isfinite(norm):
        raise Diverged(step, f"the gradient norm is {float(norm):.4g}")
    optimizer.step()
    return total
