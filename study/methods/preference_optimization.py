"""Preference optimization: teach the model to say that it does not know (PO; TOFU, arXiv 2401.06121)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from study.contracts import Material, Method, Request
from study.core import validation
from study.core.terms import PARTS, Held, Part
from study.data.refusals import REFUSALS
from study.methods._retaining import unlearn
from study.model.likelihood import answer_logps, cross_entropy
from study.model.packing import Group, Prompt, pack
from study.model.vlm import VLM
from study.training import losses
from study.training.loop import frozen
from study.training.schedule import Schedule

Form = Literal["idk", "dpo"]


@dataclass(frozen=True)
class PreferenceOptimization(Method):
    """L = preference(forget) + retain_weight CE(retain), with a refusal drawn anew for every question of every batch.

    `idk` (TOFU, arXiv 2401.06121): CE(question, refusal), the mean over answer tokens. `dpo` (arXiv 2305.18290, eq. 7):
    -2/beta E log s(beta [log(p/p_0)(refusal) - log(p/p_0)(answer)]), s the sigmoid, p_0 the model before unlearning,
    log-probabilities summed over an answer, the mean over answers.
    """

    form: Form = "idk"
    """Whether the refusal is taught, or preferred to the answer."""
    beta: float = 0.1
    """Inverse temperature of `dpo` (open-unlearning: 0.1); `idk` has none."""
    retain_weight: float = 1.0
    """Weight of the cross-entropy on the retain lessons (published: 1)."""
    modality: Material = "all"
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.positive(self, "beta")
        validation.not_negative(self, "retain_weight")

    @property
    def holds(self) -> Held:
        """For `dpo` the model as it was, to compare with."""
        return "copy" if self.form == "dpo" else "nothing"

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Teach refusals in place of the forget answers."""
        request = request.only(self.modality)
        draw = random.Random(request.seed)
        if self.form == "dpo":
            vanilla = frozen(vlm, self.trains, self.schedule)

        def idk(groups: list[Group]) -> Tensor:
            return cross_entropy(vlm, pack(vlm, refused(groups, draw)))

        def dpo(groups: list[Group]) -> Tensor:
            batch = pack(vlm, refused(groups, draw, answers=True))
            with torch.no_grad():
                before = answer_logps(vanilla, batch)
            refusal, answer = (answer_logps(vlm, batch) - before).view(-1, 2).unbind(1)
            return losses.dpo(refusal, answer, self.beta)

        return unlearn(self, vlm, request, idk if self.form == "idk" else dpo)


def refused(groups: list[Group], draw: random.Random, *, answers: bool = False) -> list[Group]:
    """The same questions with a refusal for an answer; with `answers`, the answer itself comes second."""
    return [
        Group(
            group.picture,
            tuple(
                Prompt(prompt.text, (draw.choice(REFUSALS), *(prompt.answers if answers else ())))
                for prompt in group.prompts
            ),
        )
        for group in groups
    ]
