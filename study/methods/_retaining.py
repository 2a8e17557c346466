"""The form most methods share: a loss of their own on the forget lessons, cross-entropy on the retain lessons."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from study.contracts import Request
from study.core.terms import Part
from study.model.likelihood import Labels, cross_entropy
from study.model.packing import Group, pack
from study.model.vlm import VLM
from study.training.loop import train
from study.training.retaining import BatchLoss, retaining
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


def unlearn(method: Retaining, vlm: VLM, request: Request, forget_loss: BatchLoss, labels: Labels = "answer") -> VLM:
    """Minimize forget_loss(forget lessons) + retain_weight CE(retain lessons), both in every step; in place."""

    def retain_loss(groups: list[Group]) -> Tensor:
        return cross_entropy(vlm, pack(vlm, groups), labels)

    schedule, seed = method.schedule, request.seed
    loss = retaining(
        forget_loss,
        request.forget,
        retain_loss,
        request.retain,
        weight=method.retain_weight,
        schedule=schedule,
        seed=seed,
    )
    train(vlm, method.trains, schedule, loss, seed=seed)
    return vlm
