"""Interpolation with the base model: a defence may have moved the weights further than the knowledge.

theta + a (theta_base - theta) for the chosen parts; a = 1 is swap-back, and a part that learning trained may keep what
it learned at a small a at which the unlearning is undone already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from study.attacks._weights import check_parts
from study.contracts import Attack, Request, Stage
from study.core.terms import Part
from study.data.benchmark import Question
from study.engine.sharded_tensors import shard_like
from study.model.vlm import VLM


@dataclass(frozen=True)
class Interpolation(Attack):
    """Moves parts towards the base model; the step of a stage is how far, in percent. Drops an instruction."""

    parts: tuple[Part, ...] = ("vision", "projector")
    percents: tuple[int, ...] = (25, 50, 75, 100)
    """How far, in rising order; 100 is the base model's part, more is beyond it. The attack counts at the
    stage that brings the most back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_parts(self.parts)
        if not self.percents or any(later <= sooner for sooner, later in pairwise((0, *self.percents))):
            raise ValueError(f"percents={self.percents}: whole numbers above 0 in rising order")

    @torch.no_grad()
    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The model at each of `percents`."""
        vlm.check_changeable(self.parts)
        base = request.base().tensors()
        moved = {name: p for name, p in vlm.model.named_parameters() if vlm.part_of(name) in self.parts}
        found = {name: p.detach().clone() for name, p in moved.items()}
        target = vlm.with_instruction("")
        for percent in self.percents:
            for name, parameter in moved.items():
                parameter.copy_(found[name].lerp(shard_like(base[name], parameter), percent / 100))
            yield Stage(percent, target, questions)
