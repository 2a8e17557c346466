"""No attack: what every other one is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from study.contracts import Attack, Request, Stage
from study.data.benchmark import Question
from study.model.vlm import VLM


@dataclass(frozen=True)
class Nothing(Attack):
    """Asks the model once more, as step 1: what differs from step 0 is rounding. An instruction stays."""

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The model as it was found."""
        yield Stage(1, vlm, questions)
