"""The official protocol: questions as the authors of a benchmark ask them, so that numbers stand beside their tables.

A benchmark that has such a protocol says word for word what is asked; `study.evaluation.official_scoring` asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from study.data.benchmark import Question, Split
from study.data.picture import Picture

IMAGE = "<image>"


@dataclass(frozen=True)
class OfficialPrompt:
    """One question in the authors' words, with whatever examples they put before it.

    `text` is the whole prompt as their code gives it to LLaVA-1.5, from "USER:" to "ASSISTANT:", with one `IMAGE` for
    each of `pictures`, in order. Other families are asked the same through their own chat template.
    """

    question: Question
    text: str
    pictures: tuple[Picture, ...]
    most_tokens: int
    """How many tokens the greedy reply may have."""
    overlap: Literal["rouge_l", "rouge_l_recall"] = "rouge_l"
    """Which ROUGE-L the authors report of a free reply that is no cloze: F1 or recall."""
    read: Callable[[str], str | None] = field(default=str.strip, compare=False)
    """What the reply answers, for a choice the text of an option; None if it cannot be told."""

    def __post_init__(self) -> None:
        if self.text.count(IMAGE) != len(self.pictures):
            raise ValueError(
                f"{self.question.id}: {self.text.count(IMAGE)} places for {len(self.pictures)} pictures in its prompt"
            )


@runtime_checkable
class OfficialProtocol(Protocol):
    """A benchmark of which it is known what its authors ask."""

    def released(self, split: Split, seed: int) -> Iterator[OfficialPrompt]:
        """Every question of a split as its authors put it; the seed chooses few-shot examples and test pictures."""
        ...
