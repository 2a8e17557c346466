"""WGA: gradient ascent weighted by how likely a token still is (Wang et al. 2025, arXiv 2502.19301)."""

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
class WGA(Method):
    """L = E_forget[p^beta log p] + retain_weight CE(retain), arXiv 2502.19301.

    p is the probability of a taught token, the weight p^beta a constant to the gradient; the mean over answer tokens.
    The code of open-unlearning does the same.
    """

    beta: float = 1.0
    """Power of the weight: 0 is gradient ascent, more lets go of unlikely tokens sooner (open-unlearning: 1)."""
    retain_weight: float = 1.0
    """Weight of the cross-entropy on the retain lessons (open-unlearning: 1)."""
    modality: Material = "all"
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.not_negative(self, "beta", "retain_weight")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Climb where the forget answers are still likely."""

        def forget_loss(groups: list[Group]) -> Tensor:
            return losses.satimp(logps(vlm, pack(vlm, groups)), self.beta, 0.0)

        return unlearn(self, vlm, request.only(self.modality), forget_loss)
