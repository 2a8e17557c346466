"""Visual knowledge distillation (VKD; arXiv 2512.11325): forget with the visual module alone.

The paper's equations were not available: this is a documented reconstruction from its abstract (only the visual
components are trained; intermediate visual features of a teacher supervise; saliency mask; neuron pruning). What it
leaves open is a hyper-parameter here.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from study.contracts import Method, Need, Request
from study.core import validation
from study.core.terms import Part
from study.data.benchmark import Lesson
from study.data.picture import Picture
from study.engine.sharded_tensors import full_tensor, zero_
from study.engine.world import world
from study.methods._features import Layers, apart
from study.methods._saliency import masks, saliency
from study.model.likelihood import answer_sums, token_logps
from study.model.packing import logits, pack
from study.model.vision import Features, Pixels, gathered, joined
from study.model.vlm import VLM
from study.training import losses
from study.training.lesson_sampler import Lessons
from study.training.loop import frozen, train
from study.training.schedule import Schedule
from study.training.views import Views

Teacher = Literal["strangers_mean", "stranger", "other_person", "pruned", "base", "reference"]
T = TypeVar("T")
Teach = Callable[[Sequence[Picture], Pixels], Features]

AT_ONCE = 16
"""Pictures of strangers that are encoded in one pass, without gradients: about as many as a training step has."""
KEPT_BYTES = 2**30
"""Bytes of vanilla's features that are cached for pictures that are seen again: 57 MB each for LLaVA-1.5-7B, so 18."""
_NEURONS = ("fc1.weight", "gate_proj.weight", "up_proj.weight")
"""What leads into the neurons of an MLP, one row each; a gated MLP has two such matrices."""


@dataclass(frozen=True)
class VKD(Method):
    """L = forget_weight NPO(forget) + retain_weight CE(retain) + erase_weight d(forget) + keep_weight d(retain).

    d compares features of the visual module with a teacher's, a mean over `layers` plus the projector output. On
    retain pictures the teacher is vanilla (keep); on forget pictures it is one that does not know them (erase). The
    LLM is frozen, so text-only answers stay bit for bit vanilla's; while `forget_weight` and `retain_weight` are 0
    it is never called. A face is forgotten as a whole: asked for single attributes, this takes the others along.
    """

    needs_strangers: ClassVar[Mapping[str, Need]] = {"teacher": Need(("strangers_mean", "stranger"), "other_person")}

    teacher: Teacher = "stranger"
    """What a forget picture should look like afterwards: the mean of strangers; a stranger, one of their own for each
    forget person; another person of the retain set, likewise; or itself as seen by vanilla with its forget-salient
    vision neurons pruned, by the base model, or by the reference (an oracle)."""
    layers: Layers = "all"
    """Vision layers that are supervised; the projector output always is."""
    distance: losses.Distance = "mse"
    """Distance of features, per token."""
    erase_weight: float = 1.0
    """Weight of the distance to the teacher on forget pictures."""
    keep_weight: float = 5.0
    """Weight of the distance to vanilla on retain pictures."""
    forget_weight: float = 0.0
    """Weight of NPO on the forget answers."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers."""
    beta: float = 0.1
    """Inverse temperature of the NPO term."""
    saliency_threshold: float = 0.0
    """Only weights with S(forget) / S(retain) at or above it are trained; 0 trains all."""
    augment: float = 0.67
    """Share of pictures that are rotated, scaled, stretched, shifted, dimmed and noised."""
    keep_ratio: int = 2
    """Retain pictures per forget picture."""
    prune: float = 0.1
    """Share of vision neurons that the `pruned` teacher lacks."""
    trains: tuple[Part, ...] = ("vision", "projector")
    """Parts that are trained; never the LLM."""
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
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

    @property
    def oracle(self) -> bool:
        """Whether it uses the reference, which no real request has."""
        return self.teacher == "reference"

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

        mask = None
        if self.saliency_threshold:
            mask = masks(saliency(vlm, request, self.trains), self.saliency_threshold)
        train(vlm, self.trains, self.schedule, loss, seed=request.seed, masks=mask)
        return vlm

    def _npo(self, vlm: VLM, vanilla: VLM, forget: Lessons) -> Tensor:
        batch = pack(vlm, forget.draw())
        with torch.no_grad():
            reference = answer_sums(token_logps(logits(vanilla, batch), batch), batch)
        return losses.npo(answer_sums(token_logps(logits(vlm, batch), batch), batch), reference, self.beta)

    def _teacher(self, vanilla: VLM, request: Request, forget: Lessons, retain: Lessons) -> Teach:
        """What maps forget pictures, and their pixels as the student sees them, to the features they shall have."""
        if self.teacher in ("strangers_mean", "stranger"):
            if not request.strangers:
                raise ValueError(
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
            teacher = request.base() if self.teacher == "base" else request.reference()
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


def pruned(vanilla: VLM, request: Request, share: float) -> VLM:
    """Vanilla without the vision MLP neurons that matter most to the forget set, `share` of them in every layer.

    A neuron's score is the sum over its input weights of the log saliency ratio (MANU's idea, arXiv 2502.15910).
    Raises `ValueError` if the tower's MLPs are none of those that are known.
    """
    teacher = vanilla.frozen_copy(("vision",))
    ratios = saliency(teacher, request, ("vision",))
    layers: dict[str, list[str]] = {}
    for name in ratios:
        if name.endswith(_NEURONS):
            layers.setdefault(name.rsplit(".", 2)[0], []).append(name)
    if not layers:
        known = ", ".join(name.partition(".")[0] for name in _NEURONS)
        raise ValueError(f"teacher='pruned' needs a vision tower with {known} layers; choose another teacher")
    weights = dict(teacher.model.named_parameters())
    for names in layers.values():
        scores = torch.stack([full_tensor(ratios[name]).log().sum(1) for name in names]).sum(0)
        world().broadcast_([scores])
        neurons = scores.topk(max(1, round(share * len(scores)))).indices
        for name in names:
            zero_(weights[name], neurons)
            if (bias := weights.get(name.removesuffix("weight") + "bias")) is not None:
                zero_(bias, neurons)
    return teacher


def _cached_features(vanilla: VLM, pixels: Pixels, keys: list[str | None], cache: dict[str, Features]) -> Features:
    """Vanilla's features; those of a picture that was not augmented are computed once, as long as there is room."""
    todo = [i for i, key in enumerate(keys) if key is None or key not in cache]
    new: dict[int, Features] = {}
    if todo:
        made = vanilla.features(pixels[todo])
        new = {i: made[j : j + 1] for j, i in enumerate(todo)}
        room = KEPT_BYTES // sum(tensor[0].nbytes for tensor in (*made.layers, made.projected)) - len(cache)
        fresh = {key: new[i] for i in todo if (key := keys[i]) is not None}
        cache.update(itertools.islice(fresh.items(), max(0, room)))
    return gathered([new[i] if i in new else cache[keys[i] or ""] for i in range(len(keys))])
