"""No attack: what every other one is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from study.contracts import Request, Stage
from study.data.benchmark import Lesson, Question
from study.model.vlm import VLM


@dataclass(frozen=True)
class Nothing:
    """Asks the model as it is, and as step 1 once more. An instruction stays."""

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """No lesson."""
        return ()

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The same twice."""
        yield Stage(0, vlm, questions)
        yield Stage(1, vlm, questions)
