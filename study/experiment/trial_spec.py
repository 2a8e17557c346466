"""What a learned model and a trial are, by their content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from study.contracts import Method
from study.core.hashing import content_key
from study.core.plugins import name_of
from study.core.terms import Goal, Part
from study.data.benchmark import Benchmark, Lesson
from study.training.schedule import Schedule

Params = Mapping[str, Any]
"""The parameters of a proposal by name, as Optuna knows them."""
RATIO = "forget_ratio"
"""The parameter of a proposal that is dealt in turn and never searched."""


@dataclass(frozen=True)
class Learned:
    """A model that the study teaches: `vanilla` all lessons, `reference` all but those of a forget request."""

    kind: Literal["vanilla", "reference"]
    base: str
    benchmark: str
    goal: Goal | None
    ratio: int | None
    schedule: Schedule
    parts: tuple[Part, ...]
    seed: int

    @property
    def key(self) -> str:
        """The learned model by its content."""
        return content_key(self)


def lessons_for(learned: Learned, benchmark: Benchmark) -> tuple[Lesson, ...]:
    """What a learned model is taught.

    Under the `visual` goal the reference never sees a forget person's picture and keeps their text; under `full` it
    gets neither.
    """
    split = benchmark.split(learned.ratio if learned.ratio is not None else min(benchmark.splits))
    if learned.kind == "vanilla":
        return split.lessons
    assert learned.goal is not None
    return tuple(lesson for lesson in split.lessons if not split.is_forgotten(lesson, learned.goal))


@dataclass(frozen=True)
class Trial:
    """One method on one learned model: all that a result depends on, and nothing else."""

    start: Learned
    method: Method
    goal: Goal
    ratio: int
    seed: int
    name: str = field(default="", compare=False)
    """What the study calls the method; no part of the content."""

    @property
    def baseline(self) -> bool:
        """Whether nothing is unlearned: what trials of methods are compared with."""
        return name_of(self.method) == "none"

    @property
    def key(self) -> str:
        """The trial by its content: equal trials share one folder and run once."""
        return content_key(self)
