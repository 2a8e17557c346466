"""MMUnlearner: gradient ascent behind a saliency mask (Huo et al. 2025, arXiv 2502.11051)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from study.contracts import Material, Method, Request
from study.core import validation
from study.core.terms import PARTS, Held, Part
from study.engine.sharded_tensors import full_tensor, gradients
from study.engine.world import world
from study.methods._saliency import masks, saliency
from study.model.likelihood import cross_entropy
from study.model.packing import pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule

Variant = Literal["paper", "released"]
TEXTS = 4  # of the eight groups in each batch that the saliency of the language model is taken from
MASKED = ("proj", "fc", "linear", "mlp", "qkv")  # the released code masks no weight without one of these in its name


@dataclass(frozen=True)
class MMUnlearner(Method):
    """theta <- theta - rate (-m * forget_weight grad CE(forget) + retain_weight grad CE(retain)), in one step.

    m = 1[S(forget) / (S(retain) + eps) >= saliency_threshold] (section 3.2; `study/methods/_saliency.py`): only weights
    that matter more to what is to be forgotten are pushed away from it, all are held by the retain lessons. S of the
    visual module is taken from lessons with picture on both sides, S of the language model from both kinds, as the
    released code makes its vision and language masks; the two together are its "both" mask. Under the goal `visual`
    the retain lessons include what text says of the forget people: the paper's P. Under `full` that is to be
    forgotten too, so that S(forget) is of pictures and texts and S(retain) of other people alone.

    The update is handed to AdamW, as in the released code, after the gradients were added and clipped together.
    """

    saliency_threshold: float = 1.0
    """beta: the least S(forget) / S(retain) of a weight that ascends (published: 1); 0 lets all, which is gradient
    difference."""
    forget_weight: float = 1.0
    """Weight of the ascent (published: 1)."""
    retain_weight: float = 1.0
    """Weight of the descent (published: 1)."""
    variant: Variant = "paper"
    """`released`: one forget step, masked after clipping, then floor(retain lessons / forget lessons) retain steps,
    and so on, on shared moments; weights whose name has none of proj, fc, linear, mlp and qkv (norms, embeddings) get
    the forget gradient unmasked."""
    modality: Material = "all"
    trains: tuple[Part, ...] = PARTS
    """Parts that are trained, each behind its mask; the released code trains everything whatever its mask covers."""
    schedule: Schedule = Schedule(learning_rate=1e-5)
    """Published: 1e-5, four pictures, one epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.not_negative(self, "saliency_threshold", "forget_weight", "retain_weight")
        if self.schedule.lora_rank:
            raise ValueError(
                f"lora_rank={self.schedule.lora_rank}: the mask selects weights, and adapters change all weights of a "
                "layer (the released code masks nothing then); set lora_rank=0"
            )
        if self.variant == "released" and self.schedule.accumulate > 1:
            raise ValueError(f"accumulate={self.schedule.accumulate}: variant='released' clips each batch; use 1")

    @property
    def holds(self) -> Held:
        """Its mask, unless every weight may ascend."""
        return "mask" if self.saliency_threshold else "nothing"

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Climb on the forget lessons where the mask allows it, descend on the retain lessons everywhere."""
        request = request.only(self.modality)
        forget = Lessons(request.forget, self.schedule, request.seed)
        retain = Lessons(request.retain, self.schedule, request.seed + 1)
        mask = self.mask(vlm, request)
        weights = vlm.trainable(self.trains)
        turns = 1 + max(1, len(request.retain) // len(request.forget))

        def ascent() -> Tensor:
            value = -self.forget_weight * cross_entropy(vlm, pack(vlm, forget.draw()))
            trained = list(weights.values())
            means = world().average_gradients(gradients(value, trained), trained)  # clipping is of the whole gradient
            gradient = {name: g for name, g in zip(weights, means, strict=True) if g is not None}
            if self.variant == "released":
                _clip(gradient, self.schedule.clip)
            return with_gradient(value, {name: g * mask.get(name, 1) for name, g in gradient.items()}, weights)

        def descent() -> Tensor:
            return self.retain_weight * cross_entropy(vlm, pack(vlm, retain.draw()))

        def loss(step: int) -> Tensor:
            if self.variant == "released":
                return descent() if step % turns else ascent()
            return descent() + ascent()

        train(vlm, self.trains, self.schedule, loss, seed=request.seed)
        return vlm

    def mask(self, vlm: VLM, request: Request) -> dict[str, Tensor]:
        """1 where a weight may ascend, by name; a weight that is not there may.

        Raises `ValueError` if none could.
        """
        if not self.saliency_threshold:
            return {}
        ratios: dict[str, Tensor] = {}
        visual = tuple(part for part in self.trains if part != "llm")
        if visual and any(lesson.picture is not None for lesson in request.forget):
            ratios |= saliency(vlm, request, visual)
        if "llm" in self.trains:
            ratios |= saliency(vlm, request, ("llm",), texts=TEXTS)
        found = masks(ratios, self.saliency_threshold)
        if self.variant == "released":
            found = {name: mask for name, mask in found.items() if any(key in name for key in MASKED)}
        return found


def with_gradient(value: Tensor, gradient: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """A scalar with the value of `value` and a gradient that was made elsewhere: of all `weights` not named, zero."""
    total = value.detach()
    for name, g in gradient.items():
        total = total + full_tensor((g * (weights[name] - weights[name].detach())).sum())
    return total


def _clip(gradient: Mapping[str, Tensor], largest: float) -> None:
    """Scale a gradient, in place, to a norm of at most `largest`, as `torch.nn.utils.clip_grad_norm_` does.

    Squares are summed in float32: bfloat16 has eight bits.
    """
    norm = math.sqrt(sum(float(full_tensor(g.float().square().sum())) for g in gradient.values()))
    for g in gradient.values():
        g.mul_(min(1.0, largest / (norm + 1e-6)))
