"""Visual knowledge distillation (VKD; arXiv 2512.11325): forget with the visual module alone.

The authors' code and the body of the paper were not available: both variants are readings of its abstract and of
summaries by others. What these leave open is a hyper-parameter here.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from study.contracts import Method, Need, Request
from study.core import validation
from study.core.errors import Refused
from study.core.hashing import before
from study.core.terms import Held, Part
from study.data.benchmark import Lesson
from study.data.picture import Picture
from study.engine.sharded_tensors import overwrite
from study.methods._features import Layers, apart
from study.methods._neurons import mlps
from study.methods._saliency import masks, neuron_masks, saliency, salient_neurons
from study.model.likelihood import answer_sums, token_logps
from study.model.packing import logits, pack
from study.model.vision import FEATURE_BYTES, Features, Pixels, gathered, joined
from study.model.vlm import VLM
from study.training import losses
from study.training.lesson_sampler import Lessons
from study.training.loop import frozen, train
from study.training.schedule import Schedule
from study.training.views import Views

Variant = Literal["described", "features"]
Teacher = Literal["strangers_mean", "stranger", "other_person", "pruned", "base", "reference"]
Neurons = Literal["all", "pruned"]
T = TypeVar("T")
Teach = Callable[[Sequence[Picture], Pixels], Features]

AT_ONCE = 16
"""Pictures of strangers that are encoded in one pass, without gradients: about as many as a training step has."""
ALONE: Mapping[str, Any] = {"forget_weight": 0.0, "retain_weight": 0.0, "saliency_threshold": 0.0, "neurons": "all"}
"""What `features` consists in: no loss on answers, and all weights are trained."""
UNSET: Mapping[Variant, Mapping[str, Any]] = {
    "described": {
        "teacher": "base",
        "erase_weight": 0.2,  # of 0, 0.2 and 1, tried on the tiny study; there the other values were not varied
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "saliency_threshold": 1.0,  # published by MMUnlearner, whose mask it is
    },
    "features": {"teacher": "stranger", "erase_weight": 1.0, **ALONE},
}
"""What each variant makes of fields that are not set."""
VISUAL: tuple[Part, ...] = ("vision", "projector")
BY_VARIANT: Any = None
"""The default of such a field; no instance keeps it."""


@dataclass(frozen=True)
class VKD(Method):
    """L = forget_weight NPO(forget) + retain_weight CE(retain) + erase_weight d(forget) + keep_weight d(retain).

    d compares features of the visual module with a teacher's, a mean over `layers` plus the projector output. On
    retain pictures the teacher is vanilla (keep); on forget pictures it is one that does not know them (erase). The
    LLM is frozen, so text-only answers stay bit for bit vanilla's. A face is forgotten as a whole: asked for single
    attributes, this takes the others along.

    Neither variant is the authors' code, which was not found. They are readings of the abstract and of summaries by
    others (arxivlens, emergentmind; neither gives an equation, a layer, a distance or a weight):

    | component | what is written of it | `described` | `features` |
    |---|---|---|---|
    | trained | "only fine-tunes the visual components" (abstract) | vision, projector | the same |
    | supervision | "intermediate visual representations [...]" (abstract) | both d | both d |
    | losses on outputs | d in their place (abstract); d is auxiliary (summaries) | NPO and CE | none |
    | forget loss | nothing | NPO, for its bound | d(forget) |
    | weight mask | "for selective forgetting" (summaries), ablated (a reader) | MMUnlearner's, from 1 | none |
    | neuron pruning | partial fine-tuning "with neuron pruning" (emergentmind) | `neurons=pruned` | `teacher=pruned` |
    | teacher | its quality matters (summaries) | base model | strangers |

    Of the authors' next paper (arXiv 2605.05909) it is said that a "reference model" supervises: here `base`, which
    every request has, or `reference`, an oracle. Without losses on outputs the LLM is never called.
    """

    needs_strangers: ClassVar[Mapping[str, Need]] = {"teacher": Need(("strangers_mean", "stranger"), "other_person")}

    variant: Variant = field(default="described", metadata=before("features"))
    """`described` or `features` alone. Where they are not set, teacher, erase_weight, forget_weight, retain_weight and
    saliency_threshold are base, 0.2, 1, 1 and 1, or stranger, 1, 0, 0 and 0."""
    teacher: Teacher = BY_VARIANT
    """What a forget picture should look like afterwards: the mean of strangers; a stranger, one of their own for each
    forget person; another person of the retain set, likewise; or itself as seen by vanilla with its forget-salient
    vision neurons pruned, by the base model, or by the reference (an oracle)."""
    layers: Layers = "all"
    """Vision layers that are supervised; the projector output always is."""
    distance: losses.Distance = "mse"
    """Distance of features, per token."""
    erase_weight: float = BY_VARIANT
    """Weight of the distance to the teacher on forget pictures."""
    keep_weight: float = 5.0
    """Weight of the distance to vanilla on retain pictures."""
    forget_weight: float = BY_VARIANT
    """Weight of NPO on the forget answers."""
    retain_weight: float = BY_VARIANT
    """Weight of the cross-entropy on the retain answers."""
    beta: float = 0.1
    """Inverse temperature of the NPO term."""
    saliency_threshold: float = BY_VARIANT
    """Only weights with S(forget) / S(retain) at or above it are trained; 0 trains all."""
    neurons: Neurons = field(default="all", metadata=before("all"))
    """`pruned` trains, of what the mask lets pass, only the weights into and out of the MLP neurons that matter most to
    the forget set: of all other weights, a projector without an MLP included, none."""
    augment: float = 0.67
    """Share of pictures that are rotated, scaled, stretched, shifted, dimmed and noised."""
    keep_ratio: int = 2
    """Retain pictures per forget picture."""
    prune: float = 0.1
    """Share of the neurons of each MLP that the `pruned` teacher lacks, or that alone are trained."""
    trains: tuple[Part, ...] = VISUAL
    """Parts that are trained; never the LLM."""
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        for name, value in UNSET.get(self.variant, {}).items():
            if getattr(self, name) is BY_VARIANT:
                object.__setattr__(self, name, value)
        super().__post_init__()
        if "llm" in self.trains or not self.trains:
            raise ValueError(f"trains={self.trains}: VKD trains vision, projector or both, and never the LLM")
        validation.not_negative(
            self, "erase_weight", "keep_weight", "forget_weight", "retain_weight", "saliency_threshold"
        )
        validation.fraction(self, "augment")
        validation.positive(self, "beta", "keep_ratio", "prune")
        if self.prune > 0.99:  # a layer keeps a neuron
            raise ValueError(f"prune={self.prune!r}: use a share of at most 0.99")
        self._check_variant()

    def _check_variant(self) -> None:
        for name, value in ALONE.items():
            if self.variant == "features" and getattr(self, name) != value:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: variant='features' has no loss on answers and trains all "
                    f"weights; set {name}={value}, or variant='described'"
                )
        if self.schedule.lora_rank and (self.saliency_threshold or self.neurons != "all"):
            raise ValueError(
                f"lora_rank={self.schedule.lora_rank}: a mask selects weights, and adapters change all weights of a "
                "layer; set lora_rank=0, or saliency_threshold=0 and neurons=all"
            )

    @property
    def oracle(self) -> bool:
        """Whether it uses the reference, which no real request has."""
        return self.teacher == "reference"

    @property
    def holds(self) -> Held:
        """A mask, or features alone: the variant says which."""
        return "features" if self.variant == "features" else "mask"

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Distil the forget pictures away."""
        vanilla = frozen(vlm, self.trains, self.schedule)
        forget = Lessons(request.forget, self.schedule, request.seed)
        retain = Lessons(_of_others(request), self.schedule, request.seed + 1)
        views = Views(vlm, self.augment, request.seed)
        teach = self._teacher(vanilla, request, forget, retain)
        cache: dict[str, Features] = {}

        def loss(step: int) -> Tensor:
            count = self.schedule.pictures
            forgotten = forget.draw_pictures(count)
            gone, _ = views(forgotten)
            kept, kept_ids = views(retain.draw_pictures(count * self.keep_ratio))
            with torch.no_grad():
                targets = teach(forgotten, gone)
                stays = _cached_features(vanilla, kept, kept_ids, cache)
            student = vlm.features(joined([gone, kept]))
            total = self.erase_weight * apart(student[:count], targets, self.layers, self.distance)
            total = total + self.keep_weight * apart(student[count:], stays, self.layers, self.distance)
            if self.forget_weight:
                total = total + self.forget_weight * self._npo(vlm, vanilla, forget)
            if self.retain_weight:
                batch = pack(vlm, retain.draw())
                total = total + self.retain_weight * losses.nll(token_logps(logits(vlm, batch), batch))
            return total

        train(vlm, self.trains, self.schedule, loss, seed=request.seed, masks=self.mask(vlm, request))
        return vlm

    def mask(self, vlm: VLM, request: Request) -> dict[str, Tensor] | None:
        """1 where a weight is trained, by name; None if all are.

        Raises `Refused` if none would be, or if there are no neurons to choose among.
        """
        if not self.saliency_threshold and self.neurons == "all":
            return None
        ratios = saliency(vlm, request, self.trains)
        found = masks(ratios, self.saliency_threshold)
        if self.neurons == "all":
            return found
        chosen = neuron_masks(mlps(vlm, *self.trains), ratios, self.prune)
        return {name: found[name] * mask for name, mask in chosen.items()}

    def _npo(self, vlm: VLM, vanilla: VLM, forget: Lessons) -> Tensor:
        batch = pack(vlm, forget.draw())
        with torch.no_grad():
            reference = answer_sums(token_logps(logits(vanilla, batch), batch), batch)
        return losses.npo(answer_sums(token_logps(logits(vlm, batch), batch), batch), reference, self.beta)

    def _teacher(self, vanilla: VLM, request: Request, forget: Lessons, retain: Lessons) -> Teach:
        """What maps forget pictures, and their pixels as the student sees them, to the features they shall have."""
        if self.teacher in ("strangers_mean", "stranger"):
            if not request.strangers:
                raise Refused(
                    f"teacher={self.teacher!r} needs pictures of strangers and the benchmark has none: add a Strangers "
                    "folder to it or choose teacher='other_person'"
                )
            if self.teacher == "strangers_mean":
                mean = _mean_features(vanilla, request.strangers)
                return lambda pictures, pixels: mean
            double = _doubles(forget, request.strangers, request.seed)
            dealt = list(dict.fromkeys(double.values()))
            strangers = gathered(list(_chunks(vanilla, dealt)))
            place = {person: dealt.index(stranger) for person, stranger in double.items()}
            return lambda pictures, pixels: strangers[[place[forget.person_of(p)] for p in pictures]]
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
            teacher = _seeing_as(vanilla, request.base() if self.teacher == "base" else request.reference())
        return lambda pictures, pixels: teacher.features(pixels)


def _of_others(request: Request) -> list[Lesson]:
    """The retain lessons without pictures of the forget people, which a request for some attributes leaves there."""
    gone = request.split.forget_people
    return [lesson for lesson in request.retain if lesson.picture is None or lesson.person not in gone]


def _doubles(forget: Lessons, candidates: Sequence[T], seed: int) -> dict[str, T]:
    """One candidate for each forget person, all different while there are enough."""
    people = sorted(forget.albums())
    order = list(candidates)
    random.Random(seed).shuffle(order)
    return {person: order[i % len(order)] for i, person in enumerate(people)}


@torch.no_grad()
def _chunks(vlm: VLM, pictures: Sequence[Picture]) -> Iterator[Features]:
    """The features of pictures, a few at a time."""
    for start in range(0, len(pictures), AT_ONCE):
        yield vlm.features(vlm.pixels(pictures[start : start + AT_ONCE]))


def _mean_features(vlm: VLM, pictures: Sequence[Picture]) -> Features:
    """The mean over pictures, as a batch of one, without holding the features of all."""
    total: list[Tensor] = []
    for made in _chunks(vlm, pictures):
        sums = [tensor.sum(0, keepdim=True) for tensor in (*made.layers, made.projected)]
        total = [a + b for a, b in zip(total, sums, strict=True)] if total else sums
    *layers, projected = (tensor / len(pictures) for tensor in total)
    return Features(tuple(layers), projected)


def _seeing_as(vanilla: VLM, other: VLM) -> VLM:
    """Vanilla with the visual module of another model, whose LLM need not stay in memory."""
    teacher = vanilla.frozen_copy(VISUAL)
    theirs = other.tensors()
    for name, weight in teacher.tensors().items():
        if teacher.part_of(name) in VISUAL:
            overwrite(weight, theirs[name])
    return teacher


def pruned(vanilla: VLM, request: Request, share: float) -> VLM:
    """Vanilla without the vision MLP neurons that matter most to the forget set, `share` of them in every layer.

    Raises `Refused` if the tower has no MLP of those that are known.
    """
    teacher = vanilla.frozen_copy(("vision",))
    ratios = saliency(teacher, request, ("vision",))
    for mlp in mlps(teacher, "vision"):
        mlp.kill(salient_neurons(mlp, ratios, share))
    return teacher


def _cached_features(vanilla: VLM, pixels: Pixels, keys: list[str | None], cache: dict[str, Features]) -> Features:
    """Vanilla's features; those of a picture that was not augmented are computed once, as long as there is room.

    That is 33 pictures at 32 MB each for LLaVA-1.5-7B. None are kept on disk: a GPU makes them faster than it reads
    them (docs/cost.md).
    """
    todo = [i for i, key in enumerate(keys) if key is None or key not in cache]
    new: dict[int, Features] = {}
    if todo:
        made = vanilla.features(pixels[todo])
        new = {i: made[j : j + 1] for j, i in enumerate(todo)}
        room = FEATURE_BYTES // sum(tensor[0].nbytes for tensor in (*made.layers, made.projected)) - len(cache)
        fresh = {key: new[i] for i in todo if (key := keys[i]) is not None}
        cache.update(itertools.islice(fresh.items(), max(0, room)))
    return gathered([new[i] if i in new else cache[keys[i] or ""] for i in range(len(keys))])
