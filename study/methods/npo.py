"""Negative preference optimization (NPO; Zhang et al. 2024, arXiv 2404.05868)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from study.contracts import Material, Method, Request
from study.core import validation
from study.core.hashing import before
from study.core.terms import PARTS, Held, Part
from study.methods._retaining import unlearn
from study.model.likelihood import Labels, answer_logps, cross_entropy
from study.model.packing import Group, pack
from study.model.vlm import VLM
from study.training import losses
from study.training.loop import frozen
from study.training.schedule import Schedule

Variant = Literal["paper", "released"]


@dataclass(frozen=True)
class NPO(Method):
    """L = NPO_beta(forget) + retain_weight CE(retain), arXiv 2404.05868, eq. 3 and its retain-regularized form.

    `paper` sums log-probabilities over an answer, takes the mean over answers, and compares with the model before
    unlearning. `released` has the loss of MLLMU-Bench's code (revision 0e3098e): -2/beta log s(beta (CE - CE_ref))
    of a batch's mean cross-entropies, s the sigmoid, without retain term (there with beta 0.4), and for reference a
    model fine-tuned on the retain set, which makes it an oracle. The cross-entropies are over answers; in that code
    over all tokens but padding, as with `labels=all`.
    """

    beta: float = 0.1
    """Inverse temperature; at 0 the gradient is that of gradient ascent (published: 0.1, MLLMU-Bench: 0.4)."""
    retain_weight: float = 1.0
    """Weight of the cross-entropy on the retain lessons (open-unlearning: 1); the released variant has none."""
    variant: Variant = "paper"
    """The paper's loss, or that of MLLMU-Bench's code on answers, which uses the reference model."""
    modality: Material = "all"
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()
    labels: Labels = field(default="answer", metadata=before("answer"))
    """The tokens of the released cross-entropies: of answers, or all but padding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels == "all" and self.variant != "released":
            raise ValueError(f"labels=all with variant={self.variant}: it compares whole answers; set variant=released")
        validation.positive(self, "beta")
        validation.not_negative(self, "retain_weight")

    @property
    def oracle(self) -> bool:
        """Whether this setting uses the reference model, which no real request has."""
        return self.variant == "released"

    @property
    def holds(self) -> Held:
        """The model as it was, to compare with."""
        return "copy"

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Make the forget answers less likely than they were, with a force that fades as they fade."""
        request = request.only(self.modality)
        if self.variant == "released":
            return self._released(vlm, request)
        vanilla = frozen(vlm, self.trains, self.schedule)

        def forget_loss(groups: list[Group]) -> Tensor:
            batch = pack(vlm, groups)
            with torch.no_grad():
                before = answer_logps(vanilla, batch)
            return losses.npo(answer_logps(vlm, batch), before, self.beta)

        return unlearn(self, vlm, request, forget_loss)

    def _released(self, vlm: VLM, request: Request) -> VLM:
        oracle = request.reference()

        def forget_loss(groups: list[Group]) -> Tensor:
            batch = pack(vlm, groups)
            with torch.no_grad():
                reference = -cross_entropy(oracle, batch, self.labels)
            return losses.npo(-cross_entropy(vlm, batch, self.labels), reference, self.beta)

        return unlearn(replace(self, retain_weight=0.0), vlm, request, forget_loss)
