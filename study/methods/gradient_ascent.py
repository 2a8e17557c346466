"""Gradient ascent on what is to be forgotten (GA; Thudi et al. 2022, as in MLLMU-Bench, arXiv 2410.22108)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from study.contracts import Material, Method, Request
from study.core.hashing import before
from study.core.terms import PARTS, Part
from study.model.likelihood import Labels, cross_entropy
from study.model.packing import pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule


@dataclass(frozen=True)
class GradientAscent(Method):
    """L = -CE(forget), the mean over answer tokens (TOFU, arXiv 2401.06121, section 4).

    It has no minimum and nothing that keeps the rest: the field's known-weak baseline. The released code of MLLMU-Bench
    (revision 0e3098e) masks padding alone and so climbs on prompts and picture placeholders too, as `labels=all` does.
    """

    modality: Material = "all"
    trains: tuple[Part, ...] = PARTS
    schedule: Schedule = Schedule()
    labels: Labels = field(default="answer", metadata=before("answer"))
    """The tokens on which it climbs: of answers, or all but padding."""

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Climb on the forget lessons."""
        forget = Lessons(request.only(self.modality).forget, self.schedule, request.seed)

        def loss(step: int) -> Tensor:
            return -cross_entropy(vlm, pack(vlm, forget.draw()), self.labels)

        train(vlm, self.trains, self.schedule, loss, seed=request.seed)
        return vlm
