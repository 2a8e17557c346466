"""UNDIAL: self-distillation from logits adjusted against what was memorized (Dong et al. 2024, arXiv 2402.10052)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from study.contracts import Material, Method, Request
from study.core import validation
from study.core.terms import PARTS, Held, Part
from study.methods._retaining import unlearn
from study.model.packing import Group, logits, pack
from study.model.vlm import VLM
from study.training import losses
from study.training.loop import frozen
from study.training.schedule import Schedule


@dataclass(frozen=True)
class UNDIAL(Method):
    """L = CE(softmax(z_0 - gamma 1[y]), softmax(z)) on forget + retain_weight CE(retain), arXiv 2402.10052.

    z are the model's logits and z_0 those before unlearning, y is the taught token; the mean over answer tokens:
    those of prompts and padding do not count.
    """

    gamma: float = 10.0
    """By how many nats the taught token's logit is lowered (published: 10)."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain lessons (published: 0, without them)."""
    modality: Material = "all"
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.not_negative(self, "gamma", "retain_weight")

    @property
    def holds(self) -> Held:
        """The model as it was, to compare with."""
        return "copy"

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Distil the model into itself without what it memorized."""
        vanilla = frozen(vlm, self.trains, self.schedule)

        def forget_loss(groups: list[Group]) -> Tensor:
            batch = pack(vlm, groups)
            with torch.no_grad():
                before = logits(vanilla, batch)
            return losses.undial(logits(vlm, batch), before, batch.target, self.gamma)

        return unlearn(self, vlm, request.only(self.modality), forget_loss)
