"""SatImp: gradient ascent weighted by saturation and importance of a token (Yang et al. 2025, arXiv 2505.11953)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from study.contracts import Material, Method, Request
from study.core import validation
from study.core.terms import PARTS, Part
from study.methods._retaining import unlearn
from study.model.likelihood import logps
from study.model.packing import Group, pack
from study.model.vlm import VLM
from study.training import losses
from study.training.schedule import Schedule


@dataclass(frozen=True)
class SatImp(Method):
    """L = forget_weight E_forget[p^saturation (1 - p)^importance log p] + retain_weight CE(retain), arXiv 2505.11953.

    p is the probability of a taught token, the weight a constant to the gradient; the mean over answer tokens. The
    code of open-unlearning does the same.
    """

    saturation: float = 5.0
    """Power of p, beta1 of the paper: more lets go of unlikely tokens sooner (published: 5)."""
    importance: float = 1.0
    """Power of 1 - p, beta2 of the paper: more spares tokens that are certain (published: 1)."""
    forget_weight: float = 0.1
    """Weight of the ascent (open-unlearning: 0.1)."""
    retain_weight: float = 1.0
    """Weight of the cross-entropy on the retain lessons (open-unlearning: 1)."""
    modality: Material = "all"
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.not_negative(self, "saturation", "importance", "forget_weight", "retain_weight")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Climb where the forget answers are likely and not certain."""

        def forget_loss(groups: list[Group]) -> Tensor:
            loss = losses.satimp(logps(vlm, pack(vlm, groups)), self.saturation, self.importance)
            return self.forget_weight * loss

        return unlearn(self, vlm, request.only(self.modality), forget_loss)
