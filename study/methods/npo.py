"""Negative preference optimisation (NPO; Zhang et al. 2024, arXiv 2404.05868)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from study import losses
from study.contracts import Request
from study.packing import answer_sums, logits, pack, token_logps
from study.training import Lessons, Schedule, train
from study.vlm import PARTS, VLM, Part


@dataclass(frozen=True)
class NPO:
    """L = NPO_beta(forget) + retain_weight CE(retain), eq. 3 and its retain-regularised form.

    The reference is the model before unlearning and log-probabilities are summed over an answer, as in the paper;
    the released code of MLLMU-Bench takes batch-mean losses against a model fine-tuned on the retain set.
    """

    beta: float = 0.1
    retain_weight: float = 1.0
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta={self.beta}: use a positive number (gradient_ascent is its limit at 0)")
        if not self.retain_weight >= 0:
            raise ValueError(f"retain_weight={self.retain_weight}: must not be negative")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Make the forget answers less likely than they were, with a force that fades as they fade."""
        vanilla = vlm.frozen_copy(self.trains)
        forget = Lessons(request.forget, self.schedule, request.seed)
        retain = Lessons(request.retain, self.schedule, request.seed + 1)

        def loss(step: int) -> Tensor:
            batch = pack(vlm, forget.draw())
            with torch.no_grad():
                reference = answer_sums(token_logps(logits(vanilla, batch), batch), batch)
            now = answer_sums(token_logps(logits(vlm, batch), batch), batch)
            total = losses.npo(now, reference, self.beta)
            if self.retain_weight:
                batch = pack(vlm, retain.draw())
                total = total + self.retain_weight * losses.nll(token_logps(logits(vlm, batch), batch))
            return total

        train(vlm, self.trains, self.schedule, loss)
        return vlm
