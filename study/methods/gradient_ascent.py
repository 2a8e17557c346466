"""Gradient ascent on what is to be forgotten (GA; Thudi et al. 2022, as in MLLMU-Bench, arXiv 2410.22108)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from study import losses
from study.contracts import Request
from study.packing import logits, pack, token_logps
from study.training import Lessons, Schedule, train
from study.vlm import PARTS, VLM, Part


@dataclass(frozen=True)
class GradientAscent:
    """L = -CE(forget). It has no minimum and nothing that keeps the rest: the field's known-weak baseline."""

    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Climb on the forget lessons."""
        forget = Lessons(request.forget, self.schedule, request.seed)

        def loss(step: int) -> Tensor:
            batch = pack(vlm, forget.draw())
            return -losses.nll(token_logps(logits(vlm, batch), batch))

        train(vlm, self.trains, self.schedule, loss)
        return vlm
