"""Gradient difference (GradDiff; Liu et al. 2022, TOFU arXiv 2401.06121, eq. 3; GA_Diff of MLLMU-Bench)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from study import losses
from study.contracts import Request
from study.packing import logits, pack, token_logps
from study.training import Lessons, Schedule, train
from study.vlm import PARTS, VLM, Part


@dataclass(frozen=True)
class GradientDifference:
    """L = -forget_weight CE(forget) + retain_weight CE(retain), both terms in every step.

    The released MLLMU-Bench code makes a whole pass of ascent and then one of descent; the paper's joint form is
    what is done here.
    """

    forget_weight: float = 1.0
    retain_weight: float = 1.0
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        for name in ("forget_weight", "retain_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Climb on the forget lessons, descend on the retain lessons."""
        forget = Lessons(request.forget, self.schedule, request.seed)
        retain = Lessons(request.retain, self.schedule, request.seed + 1)

        def cross_entropy(lessons: Lessons) -> Tensor:
            batch = pack(vlm, lessons.draw())
            return losses.nll(token_logps(logits(vlm, batch), batch))

        def loss(step: int) -> Tensor:
            return self.retain_weight * cross_entropy(retain) - self.forget_weight * cross_entropy(forget)

        train(vlm, self.trains, self.schedule, loss)
        return vlm
