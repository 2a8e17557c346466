"""KL minimisation (KL_Min; TOFU arXiv 2401.06121, eq. 4, as in MLLMU-Bench, arXiv 2410.22108)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from study import losses
from study.contracts import Request
from study.packing import logits, pack, token_logps
from study.training import Lessons, Schedule, train
from study.vlm import PARTS, VLM, Part


@dataclass(frozen=True)
class KLMinimization:
    """L = -CE(forget) + kl_weight KL(vanilla || model) on the retain lessons.

    The divergence is the mean over answer tokens; the released code takes it over every token, image placeholders,
    prompts and padding included, which drowns it.
    """

    kl_weight: float = 1.0
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        if not self.kl_weight >= 0:
            raise ValueError(f"kl_weight={self.kl_weight}: must not be negative")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Climb on the forget lessons, stay close to vanilla on the retain lessons."""
        vanilla = vlm.frozen_copy(self.trains)
        forget = Lessons(request.forget, self.schedule, request.seed)
        retain = Lessons(request.retain, self.schedule, request.seed + 1)

        def loss(step: int) -> Tensor:
            batch = pack(vlm, retain.draw())
            with torch.no_grad():
                reference = logits(vanilla, batch)
            divergence = losses.kl(logits(vlm, batch), reference)
            batch = pack(vlm, forget.draw())
            return self.kl_weight * divergence - losses.nll(token_logps(logits(vlm, batch), batch))

        train(vlm, self.trains, self.schedule, loss)
        return vlm
