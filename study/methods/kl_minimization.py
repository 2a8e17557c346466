"""KL minimization (KL_Min; TOFU arXiv 2401.06121, eq. 4, as in MLLMU-Bench, arXiv 2410.22108)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from study.contracts import Material, Method, Request
from study.core import validation
from study.core.hashing import before
from study.core.terms import PARTS, Held, Part
from study.model.likelihood import Labels, cross_entropy, token_logps
from study.model.packing import Batch, logits, pack
from study.model.vlm import VLM
from study.training import losses
from study.training.lesson_sampler import Lessons
from study.training.loop import frozen, train
from study.training.schedule import Schedule

Variant = Literal["paper", "released"]


@dataclass(frozen=True)
class KLMinimization(Method):
    """L = -CE(forget) + kl_weight KL(vanilla || model) on the retain lessons (TOFU, arXiv 2401.06121, eq. 4).

    All are means over tokens. `paper` takes the divergence at answer tokens. `released` takes it at every token of the
    packed rows, image placeholders and prompts included and padding left out, which drowns the answers, and adds
    CE(retain), as the retain steps of MLLMU-Bench's code (revision 0e3098e) do. That code sums over the tokens of a row
    (`batchmean` divides by rows): its weight of 1 is ours times the tokens in a row. Its cross-entropies have all
    tokens but padding as labels, as with `labels=all`. Here both terms are in every step.
    """

    kl_weight: float = 1.0
    """Weight of the divergence (published: 1)."""
    variant: Variant = "paper"
    """The divergence at answer tokens, or at all tokens with CE(retain) beside it."""
    modality: Material = "all"
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()
    labels: Labels = field(default="answer", metadata=before("answer"))
    """The tokens of the cross-entropies: of answers, or all but padding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.not_negative(self, "kl_weight")

    @property
    def holds(self) -> Held:
        """The model as it was, to compare with."""
        return "copy"

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Climb on the forget lessons, stay close to vanilla on the retain lessons."""
        request = request.only(self.modality)
        vanilla = frozen(vlm, self.trains, self.schedule)
        forget = Lessons(request.forget, self.schedule, request.seed)
        retain = Lessons(request.retain, self.schedule, request.seed + 1)
        kept = self._kept_everywhere if self.variant == "released" else self._kept

        def loss(step: int) -> Tensor:
            apart = kept(vlm, vanilla, pack(vlm, retain.draw()))
            return apart - cross_entropy(vlm, pack(vlm, forget.draw()), self.labels)

        train(vlm, self.trains, self.schedule, loss, seed=request.seed)
        return vlm

    def _kept(self, vlm: VLM, vanilla: VLM, batch: Batch) -> Tensor:
        with torch.no_grad():
            reference = logits(vanilla, batch)
        return self.kl_weight * losses.kl(logits(vlm, batch), reference)

    def _kept_everywhere(self, vlm: VLM, vanilla: VLM, batch: Batch) -> Tensor:
        wide, answers = everywhere(batch), len(batch.source)
        with torch.no_grad():
            reference = logits(vanilla, wide)[answers:]
        now = logits(vlm, wide)
        divergence = losses.kl(now[answers:], reference)
        if self.labels == "all":
            return self.kl_weight * divergence + cross_entropy(vlm, batch, "all")
        return self.kl_weight * divergence + losses.nll(token_logps(now[:answers], batch))


def everywhere(batch: Batch) -> Batch:
    """The batch with every token of its rows, padding left out, asked for its logits behind those that predict answers.

    A padding token is one that sees nothing but itself and that nothing else sees.
    """
    seen = batch.attention_mask[:, 0]
    row, place = ((seen.sum(1) > 1) | (seen.sum(2) > 1)).nonzero(as_tuple=True)
    return replace(batch, row=torch.cat([batch.row, row]), source=torch.cat([batch.source, place]))
