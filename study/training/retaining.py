"""A loss on lessons that are taught, or untaught, beside a loss on retain lessons that holds the rest in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from study.data.benchmark import Lesson
from study.model.packing import Group
from study.training.lesson_sampler import Lessons
from study.training.loop import Loss
from study.training.schedule import Schedule

BatchLoss = Callable[[list[Group]], Tensor]
"""A loss on the groups of a batch."""


def retaining(
    first: BatchLoss,
    lessons: Sequence[Lesson],
    second: BatchLoss,
    retain: Sequence[Lesson],
    *,
    weight: float,
    schedule: Schedule,
    seed: int,
) -> Loss:
    """first(lessons) + weight second(retain), both drawn in every step; with a weight of 0 the latter is left out."""
    drawn = Lessons(lessons, schedule, seed)
    kept = Lessons(retain, schedule, seed + 1) if weight else None

    def loss(step: int) -> Tensor:
        total = first(drawn.draw())
        return total + weight * second(kept.draw()) if kept else total

    return loss
