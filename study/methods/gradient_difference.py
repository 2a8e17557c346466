"""Gradient difference (GradDiff; Liu et al. 2022, TOFU arXiv 2401.06121, eq. 3; GA_Diff of MLLMU-Bench)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from study.contracts import Material, Method, Request
from study.core import validation
from study.core.hashing import before
from study.core.terms import PARTS, Part
from study.methods._retaining import unlearn
from study.model.likelihood import Labels, cross_entropy
from study.model.packing import Group, pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule

Variant = Literal["paper", "released", "whole_sets"]


@dataclass(frozen=True)
class GradientDifference(Method):
    """L = -forget_weight CE(forget) + retain_weight CE(retain), TOFU, arXiv 2401.06121, eq. 3; means over tokens.

    `paper` takes both terms in every step. `released` alternates as in the baselines of MMUnlearner's code
    (revision fa77c66): a step of ascent, then as many steps of descent as there are retain lessons to a forget lesson,
    rounded down and at least one. `whole_sets` climbs first, for the forget lessons' share of all steps, and then
    descends, as an epoch of MLLMU-Bench's code (revision 0e3098e) goes through all forget lessons before all retain
    lessons. In that code all tokens but padding are labels, as with `labels=all`.
    """

    forget_weight: float = 1.0
    """Weight of the ascent (published: 1)."""
    retain_weight: float = 1.0
    """Weight of the descent (published: 1)."""
    variant: Variant = "paper"
    """Both terms in every step, alternating steps as in the code of MMUnlearner, or one set after the other."""
    modality: Material = "all"
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()
    labels: Labels = field(default="answer", metadata=before("answer"))
    """The tokens whose likelihood changes: of answers, or all but padding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.not_negative(self, "forget_weight", "retain_weight")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Climb on the forget lessons, descend on the retain lessons."""
        request = request.only(self.modality)
        if self.variant != "paper":
            return self._in_turn(vlm, request)

        def forget_loss(groups: list[Group]) -> Tensor:
            return -self.forget_weight * cross_entropy(vlm, pack(vlm, groups), self.labels)

        return unlearn(self, vlm, request, forget_loss, self.labels)

    def _in_turn(self, vlm: VLM, request: Request) -> VLM:
        forget = Lessons(request.forget, self.schedule, request.seed)
        retain = Lessons(request.retain, self.schedule, request.seed + 1)

        def loss(step: int) -> Tensor:
            if self._climbs(step, len(request.forget), len(request.retain)):
                return -self.forget_weight * cross_entropy(vlm, pack(vlm, forget.draw()), self.labels)
            return self.retain_weight * cross_entropy(vlm, pack(vlm, retain.draw()), self.labels)

        train(vlm, self.trains, self.schedule, loss, seed=request.seed)
        return vlm

    def _climbs(self, step: int, forgotten: int, kept: int) -> bool:
        """Whether a step is one of ascent, with so many lessons in each set."""
        if self.variant == "released":
            return step % (1 + max(1, kept // forgotten)) == 0
        return step < max(1, round(self.schedule.steps * forgotten / (forgotten + kept)))
