"""SimNPO: NPO without a reference and with normalized lengths (Fan et al. 2024, arXiv 2410.07163)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from study.contracts import Material, Method, Request
from study.core import validation
from study.core.terms import PARTS, Part
from study.methods._retaining import unlearn
from study.model.likelihood import answer_lengths, answer_logps
from study.model.packing import Group, pack
from study.model.vlm import VLM
from study.training import losses
from study.training.schedule import Schedule

Variant = Literal["paper", "released"]


@dataclass(frozen=True)
class SimNPO(Method):
    """L = forget_weight SimNPO(forget) + retain_weight CE(retain), arXiv 2410.07163.

    SimNPO = -2/beta E log s(-beta/|y| log p - delta), s the sigmoid: the mean over the tokens of an answer, then over
    answers. `released` (open-unlearning) puts the margin inside the temperature, -2/beta E log s(beta (NLL/|y| -
    delta)): its delta is the paper's over beta, with the same sign, and no different at the published 0.
    """

    beta: float = 4.5
    """Inverse temperature (open-unlearning: 4.5; the authors on TOFU: 2.5)."""
    delta: float = 0.0
    """Margin: the larger, the lower the likelihood at which the force fades (published: 0)."""
    forget_weight: float = 0.125
    """Weight of the forget term (open-unlearning: 0.125; the authors on TOFU: 0.1375)."""
    retain_weight: float = 1.0
    """Weight of the cross-entropy on the retain lessons (published: 1)."""
    variant: Variant = "paper"
    """Whether `delta` is outside the temperature, as in the paper, or inside, as in the released code."""
    modality: Material = "all"
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.positive(self, "beta")
        validation.not_negative(self, "delta", "forget_weight", "retain_weight")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Make the forget answers unlikely, with a force that fades once they are."""
        delta = self.delta * (self.beta if self.variant == "released" else 1)

        def forget_loss(groups: list[Group]) -> Tensor:
            batch = pack(vlm, groups)
            loss = losses.simnpo(answer_logps(vlm, batch), answer_lengths(batch), self.beta, delta)
            return self.forget_weight * loss

        return unlearn(self, vlm, request.only(self.modality), forget_loss)
