"""Visual anchoring without retain pictures (after AIM, arXiv 2608.28312).

AIM is known to this project by its abstract alone: a universal visual prompt anchors a target that does not tell who
it is, and the vision encoder only is matched to this target under a constraint from Fisher information, without any
retain image. All that this leaves open is decided here and is not the authors'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from study.contracts import Method, Need, Request
from study.core import validation
from study.core.errors import Refused
from study.core.terms import Part
from study.data.picture import Picture
from study.engine.sharded_tensors import full_tensor, gradients
from study.methods._features import Layers, apart
from study.model.likelihood import answer_logps
from study.model.packing import pack
from study.model.vision import Pixels
from study.model.vlm import VLM
from study.training import losses
from study.training.lesson_sampler import Lessons
from study.training.loop import frozen, train
from study.training.schedule import Schedule

Constraint = Literal["strangers", "anchors"]
FISHER_BATCHES, FISHER_PICTURES = 16, 8


@dataclass(frozen=True)
class VisualAnchor(Method):
    """L = d(h(x), h_0(x + delta)) + fisher_weight sum_i F_i (theta_i - theta_0,i)^2 on forget pictures x.

    Before that, delta is found: min over |delta| <= epsilon of NPO_beta(x + delta) on vanilla. It is one tensor for all
    pictures, added to what the processor makes of them. h are the features of the visual module, h_0 vanilla's: d is a
    mean over `layers` plus that of the projector output. F_i = E[(d<v, h(x)> / dtheta_i)^2] with white noise v, over
    the number of features and their variance: the penalty is, to second order and without correlations between weights,
    the relative change of the projector output on the pictures of the `constraint`. Retain pictures are never looked
    at, and the LLM is frozen: text-only answers stay bit for bit vanilla's.
    """

    needs_strangers: ClassVar[Mapping[str, Need]] = {"constraint": Need(("strangers",), "anchors")}

    epsilon: float = 0.2
    """Largest change of an entry of the pixel tensor, in units of the processor: 0.2 of CLIP's is 14 of 255 levels."""
    anchor_steps: int = 50
    """Steps on delta."""
    anchor_rate: float = 0.05
    """Learning rate of delta's Adam."""
    beta: float = 0.1
    """Of the NPO term."""
    fisher_weight: float = 300.0
    """Weight of the penalty."""
    constraint: Constraint = "anchors"
    """On which pictures the visual module is to stay as it is: those of `strangers`, or the forget pictures with delta
    on them (`anchors`), which no longer tell who it is and which every request has."""
    layers: Layers = "all"
    """Vision layers that are matched; the projector output always is."""
    distance: losses.Distance = "mse"
    """Distance of features, per token."""
    trains: tuple[Part, ...] = ("vision",)
    """The vision tower alone as in AIM, or the projector too."""
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.positive(self, "epsilon", "anchor_steps", "anchor_rate", "beta")
        validation.not_negative(self, "fisher_weight")
        if "llm" in self.trains or not self.trains:
            raise ValueError(f"trains={self.trains}: vision, projector or both are trained, and never the LLM")
        if self.schedule.lora_rank and self.fisher_weight:
            raise ValueError(
                f"lora_rank={self.schedule.lora_rank}: the Fisher penalty holds weights, which adapters leave alone; "
                "set lora_rank=0 or fisher_weight=0"
            )

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Match the forget pictures to what they look like under the perturbation that hides who it is."""
        request = request.only("image_text")
        vanilla = frozen(vlm, self.trains, self.schedule)
        delta = self.anchor(vanilla, request)
        forget = Lessons(request.forget, self.schedule, request.seed)
        fisher = self._fisher(vlm, request, list(forget.by_picture), delta) if self.fisher_weight else {}
        start, weights = dict(vanilla.model.named_parameters()), vlm.trainable(self.trains)

        def loss(step: int) -> Tensor:
            pixels = vlm.pixels(forget.draw_pictures(self.schedule.pictures))
            with torch.no_grad():
                target = vanilla.features(perturbed(pixels, delta))
            total = apart(vlm.features(pixels), target, self.layers, self.distance)
            for name, importance in fisher.items():
                change = (importance * (weights[name] - start[name]).square()).sum()
                total = total + self.fisher_weight * full_tensor(change)
            return total

        train(vlm, self.trains, self.schedule, loss, seed=request.seed)
        return vlm

    def anchor(self, vanilla: VLM, request: Request) -> Tensor:
        """Stage 1: the perturbation, of the shape of one picture's tensor, that makes vanilla forget best."""
        forget = Lessons(request.forget, self.schedule, request.seed)
        first = vanilla.pixels(list(forget.by_picture)[:1]).tensors["pixel_values"][0]
        delta = torch.zeros_like(first).requires_grad_(True)
        optimizer = torch.optim.Adam([delta], lr=self.anchor_rate)
        for _ in range(self.anchor_steps):
            groups = forget.draw()
            pixels = vanilla.pixels([group.picture for group in groups if group.picture])
            with torch.autocast(vanilla.device.type, torch.bfloat16, enabled=self.schedule.precision == "bfloat16"):
                with torch.no_grad():
                    reference = answer_logps(vanilla, pack(vanilla, groups, pixels))
                now = answer_logps(vanilla, pack(vanilla, groups, perturbed(pixels, delta)))
                loss = losses.npo(now, reference, self.beta)
            (delta.grad,) = torch.autograd.grad(loss, [delta])
            optimizer.step()
            with torch.no_grad():
                delta.clamp_(-self.epsilon, self.epsilon)
        return delta.detach()

    def _fisher(self, vlm: VLM, request: Request, forget: Sequence[Picture], delta: Tensor) -> dict[str, Tensor]:
        pictures, shift = (request.strangers, None) if self.constraint == "strangers" else (forget, delta)
        if not pictures:
            raise Refused(
                "constraint='strangers' needs pictures of strangers and the benchmark has none: add a Strangers folder "
                "to it or choose constraint='anchors'"
            )
        generator = torch.Generator().manual_seed(request.seed)
        weights = vlm.trainable(self.trains)
        total = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
        for _ in range(FISHER_BATCHES):
            drawn = torch.randint(len(pictures), (FISHER_PICTURES,), generator=generator).tolist()
            pixels = vlm.pixels([pictures[i] for i in drawn])
            gradient = projected_gradient(
                vlm, self.trains, pixels if shift is None else perturbed(pixels, shift), generator
            )
            for name, g in gradient.items():
                total[name] += g.float().square() / FISHER_BATCHES
        return total


def perturbed(pixels: Pixels, delta: Tensor) -> Pixels:
    """Every picture with `delta` added to its pixel tensor."""
    return replace(pixels, tensors={**pixels.tensors, "pixel_values": pixels.tensors["pixel_values"] + delta})


def projected_gradient(
    vlm: VLM, parts: Sequence[Part], pixels: Pixels, generator: torch.Generator
) -> dict[str, Tensor]:
    """The gradient of <noise, projector output>, whose mean square is that of the output, relative to its variance."""
    weights = vlm.trainable(parts)
    for weight in weights.values():
        weight.requires_grad_(True)
    features = vlm.features(pixels).projected.float()
    noise = torch.randn(features.shape, generator=generator).to(features.device)
    scale = (features.numel() * features.detach().var()).sqrt().clamp_min(torch.finfo(torch.float32).eps)
    found = gradients((features * noise).sum() / scale, list(weights.values()))
    for weight in weights.values():
        weight.requires_grad_(False)
    return {name: g for name, g in zip(weights, found, strict=True) if g is not None}
