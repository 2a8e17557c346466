"""The form most methods share: a loss of their own on the forget lessons, cross-entropy on the retain lessons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from study.contracts import Request
from study.core.terms import Part
from study.model.likelihood import cross_entropy
from study.model.packing import Group, pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule


class Retaining(Protocol):
    """A method of that form: what it trains, how, and the weight of the cross-entropy."""

    @property
    def retain_weight(self) -> float:
        """0 leaves the retain lessons out."""

    @property
    def trains(self) -> tuple[Part, ...]:
        """The parts it trains."""

    @property
    def schedule(self) -> Schedule:
        """How long, how fast and on how much."""


def unlearn(method: Retaining, vlm: VLM, request: Request, forget_loss: Callable[[list[Group]], Tensor]) -> VLM:
    """Minimize forget_loss(forget lessons) + retain_weight CE(retain lessons), both in every step; in place."""
    schedule = method.schedule
    forget = Lessons(request.forget, schedule, request.seed)
    retain = Lessons(request.retain, schedule, request.seed + 1) if method.retain_weight else None

    def loss(step: int) -> Tensor:
        total = forget_loss(forget.draw())
        if retain:
            total = total + method.retain_weight * cross_entropy(vlm, pack(vlm, retain.draw()))
        return total

    train(vlm, method.trains, schedule, loss, seed=request.seed)
    return vlm
