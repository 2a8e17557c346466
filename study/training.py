"""The one training loop, its schedule, and how lessons are drawn. Learning, unlearning and relearning all use it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from study import checks
from study.chunks import recomputed
from study.packing import Group, Prompt
from study.parallel import world
from study.questions import Lesson, Picture
from study.spread import whole
from study.vlm import VLM, Part

Decay = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bfloat16"]
Optimizer = Literal["adamw", "sgd"]
MOMENTUM = 0.9


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
    """Peak learning rate."""
    optimizer: Optimizer = "adamw"
    """AdamW, or SGD with momentum 0.9."""
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
    """Weight decay, decoupled in AdamW; must be 0 where a mask protects weights."""
    clip: float = 1.0
    """Largest gradient norm."""
    accumulate: int = 1
    """Batches per optimiser step."""
    precision: Precision = "float32"
    """Autocast of the forward pass."""
    checkpoint: bool = field(default=False, compare=False)  # it changes no number, so it is no part of the content
    """Whether each layer keeps only what it is given and is computed again in the backward pass: a third more
    computation, and memory for the activations of one layer in place of all."""
    lora_rank: int = 0
    """Rank of low-rank adapters on every linear layer of the trained parts, which are trained in place of the
    weights and then merged into them (published: 16); 0 trains the weights themselves."""
    lora_alpha: int = 16
    """The adapters' scale is `lora_alpha / lora_rank`."""
    lora_dropout: float = 0.05
    """Dropout before the adapters."""
    worst_loss: float = 1e4
    """A loss above it, or below its negative (ascent has no floor of its own), has diverged."""
    worst_weight: float = 1e3
    """A trained weight whose absolute value passes this has exploded."""

    def __post_init__(self) -> None:
        for name in ("steps", "pictures", "lessons_per_picture", "lessons_per_text", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use at least 1")
        for name in ("learning_rate", "weight_decay"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name}={getattr(self, name)}: use a finite number that is not negative")
        if not 0 < self.beta2 < 1:
            raise ValueError(f"beta2={self.beta2}: use a number between 0 and 1")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout={self.lora_dropout}: use a share from 0 to below 1")
        checks.not_negative(self, "texts", "warmup", "lora_rank")
        checks.positive(self, "clip", "lora_alpha", "worst_loss", "worst_weight")
        checks.choice(self, "optimizer", get_args(Optimizer))
        checks.choice(self, "decay", get_args(Decay))
        checks.choice(self, "precision", get_args(Precision))

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


def frozen(vlm: VLM, parts: Sequence[Part], schedule: Schedule) -> VLM:
    """The model as it is now, for as long as `parts` are trained under `schedule`.

    Only what the training will change is copied; while adapters are trained that is nothing.
    """
    return vlm.frozen_copy(() if schedule.lora_rank else parts)


def train(
    vlm: VLM,
    parts: Sequence[Part],
    schedule: Schedule,
    loss: Loss,
    *,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
    on_step: OnStep | None = None,
) -> list[float]:
    """Minimise `loss(step)` over the parameters of `parts`, in place; returns the loss of every step.

    As `steps`, whose errors it raises; `on_step(done, loss)` is called after every optimiser step.
    """
    curve = []
    for done, value in steps(vlm, parts, schedule, loss, seed=seed, masks=masks):
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
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[int, float]]:
    """Train as `train` does, one optimiser step at a time; yields (steps done, loss) with the model ready to score.

    `masks` maps parameter names to 0/1 tensors: an entry under 0 keeps its value bit for bit. `seed` is that of the
    adapters, if there are any: nothing else here is random. Several processes of one world compute the same loss, each
    forward shared among them, and take the same steps. Raises `Diverged` within the step in which
    loss, gradient or weights stop being finite or pass the schedule's bounds, and `ValueError` if nothing would be
    trained.
    """
    trained = _chosen(vlm, parts, schedule, masks)
    layers = recomputed(vlm.model) if schedule.checkpoint else nullcontext()
    with _weights(vlm, trained, schedule, seed) as weights, layers:
        for name, parameter in vlm.model.named_parameters():
            parameter.requires_grad_(name in weights)
        world().align([*weights.values(), *(masks or {}).values()])
        optimizer = _optimizer(list(weights.values()), schedule)
        try:
            for step in range(schedule.steps):
                for group in optimizer.param_groups:
                    group["lr"] = schedule.learning_rate * schedule.rate(step)
                vlm.model.train()
                with _dropout_seeded(schedule, seed, step * world().size + world().rank):
                    value = _step(vlm, weights, schedule, loss, step, optimizer, masks)
                vlm.model.eval()
                yield step + 1, value
        finally:
            vlm.model.eval()
            for parameter in weights.values():
                parameter.requires_grad_(False)
                parameter.grad = None


def _optimizer(weights: list[torch.nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    rate, decay = schedule.learning_rate, schedule.weight_decay
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=rate, momentum=MOMENTUM, weight_decay=decay)
    return torch.optim.AdamW(weights, lr=rate, betas=(0.9, schedule.beta2), weight_decay=decay)


def _chosen(
    vlm: VLM, parts: Sequence[Part], schedule: Schedule, masks: Mapping[str, Tensor] | None
) -> dict[str, torch.nn.Parameter]:
    """The parameters that are to change."""
    if not parts:
        raise ValueError("no part is trained: name at least one of vision, projector and llm")
    trained = vlm.trainable(parts)
    if masks is not None:
        if schedule.weight_decay:
            raise ValueError(f"weight_decay={schedule.weight_decay} would move masked weights: set it to 0")
        if schedule.lora_rank:
            raise ValueError(
                f"lora_rank={schedule.lora_rank}: a saliency mask selects weights, and adapters change all weights of "
                "a layer; set lora_rank=0 or leave the mask out"
            )
        trained = {name: p for name, p in trained.items() if name in masks and bool(whole(masks[name].any()))}
    if not trained:
        raise ValueError(f"no parameter of {', '.join(parts)} is left to train: lower the saliency threshold")
    return trained


def _weights(
    vlm: VLM, trained: Mapping[str, torch.nn.Parameter], schedule: Schedule, seed: int
) -> AbstractContextManager[Mapping[str, torch.nn.Parameter]]:
    """What the optimiser moves: the parameters themselves, or adapters that end up in them."""
    if not schedule.lora_rank:
        return nullcontext(trained)
    from study.adapters import adapted  # peft takes seconds to import and most studies do without

    return adapted(
        vlm,
        trained.keys(),
        rank=schedule.lora_rank,
        alpha=schedule.lora_alpha,
        dropout=schedule.lora_dropout,
        seed=seed,
    )


@contextmanager
def _dropout_seeded(schedule: Schedule, seed: int, draw: int) -> Iterator[None]:
    """Adapters are all that draws random numbers in a forward pass: the same seed drops the same.

    Processes that share a batch drop independently, so with dropout their number changes the result like a seed.
    """
    if not schedule.lora_rank:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(1 + seed + 1_000_003 * draw)
        yield


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
        with (
            vlm.chunks.shared() as here,
            torch.autocast(vlm.device.type, torch.bfloat16, enabled=schedule.precision == "bfloat16"),
        ):
            value = loss(step) / schedule.accumulate
        total += here.agreed(float(value.detach()))
        if not math.isfinite(total) or abs(total) > schedule.worst_loss:
            raise Diverged(step, f"the loss is {total:.4g} (limit {schedule.worst_loss:g})")
        if value.requires_grad:
            value.backward()
    gradients = [parameter.grad for parameter in trained.values()]
    for parameter, mean in zip(trained.values(), here.averages(gradients, list(trained.values())), strict=True):
        parameter.grad = mean
    for name, parameter in trained.items():
        if masks is not None and parameter.grad is not None:
            parameter.grad.mul_(masks[name])
    norm = whole(torch.nn.utils.clip_grad_norm_(trained.values(), schedule.clip))
    if not torch.isfinite(norm):
        raise Diverged(step, f"the gradient norm is {float(norm):.4g}")
    optimizer.step()
    with torch.no_grad():
        largest = here.largest(trained.values())
    if not largest <= schedule.worst_weight:
        raise Diverged(step, f"a weight is {largest:.4g} (limit {schedule.worst_weight:g})")
    return total
