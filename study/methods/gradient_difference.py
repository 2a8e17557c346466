"""Gradient difference (GradDiff; Liu et al. 2022, TOFU arXiv 2401.06121, eq. 3; GA_Diff of MLLMU-Bench)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from study.contracts import Material, Method, Request
from study.core import validation
from study.core.terms import PARTS, Part
from study.methods._retaining import unlearn
from study.model.likelihood import cross_entropy
from study.model.packing import Group, pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule

Variant = Literal["paper", "released"]


@dataclass(frozen=True)
class GradientDifference(Method):
    """L = -forget_weight CE(forget) + retain_weight CE(retain), TOFU, arXiv 2401.06121, eq. 3; means over tokens.

    `paper` takes both terms in every step. `released` alternates as in the baselines of MMUnlearner's code
    (revision fa77c66): a step of ascent, then as many steps of descent as there are retain lessons to a forget lesson,
    rounded down and at least one. Not reproduced: there the prompt's tokens are labels as well. The code of MLLMU-Bench
    (revision 0e3098e) goes through all forget lessons of an epoch before all retain lessons; that is not offered.
    """

    forget_weight: float = 1.0
    """Weight of the ascent (published: 1)."""
    retain_weight: float = 1.0
    """Weight of the descent (published: 1)."""
    variant: Variant = "paper"
    """Both terms in every step, or alternating steps as in the code of MMUnlearner."""
    modality: Material = "all"
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.not_negative(self, "forget_weight", "retain_weight")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Climb on the forget lessons, descend on the retain lessons."""
        request = request.only(self.modality)
        if self.variant == "released":
            return self._alternate(vlm, request)

        def forget_loss(groups: list[Group]) -> Tensor:
            return -self.forget_weight * cross_entropy(vlm, pack(vlm, groups))

        return unlearn(self, vlm, request, forget_loss)

    def _alternate(self, vlm: VLM, request: Request) -> VLM:
        forget = Lessons(request.forget, self.schedule, request.seed)
        retain = Lessons(request.retain, self.schedule, request.seed + 1)
        period = 1 + max(1, len(request.retain) // len(request.forget))

        def loss(step: int) -> Tensor:
            if step % period == 0:
                return -self.forget_weight * cross_entropy(vlm, pack(vlm, forget.draw()))
            return self.retain_weight * cross_entropy(vlm, pack(vlm, retain.draw()))

        train(vlm, self.trains, self.schedule, loss, seed=request.seed)
        return vlm
