"""The official protocol: questions as the authors of a benchmark ask them, for numbers comparable with their tables.

A benchmark with such a protocol provides the prompts word for word; `study.evaluation.official_scoring` uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from study.data.benchmark import Question, Split
from study.data.picture import Picture

IMAGE = "<image>"
VERSION = 4
"""Counts up whenever prompts, draws, parsing or scores of an official protocol change: rows of another are replaced."""


@dataclass(frozen=True)
class OfficialPrompt:
    """One question in the authors' words, with the examples that they put before it.

    `text` is the whole prompt as their code gives it to LLaVA-1.5, from "USER:" to "ASSISTANT:", with one `IMAGE` for
    each of `pictures`, in order. Other families get the same through their own chat template.
    """

    question: Question
    text: str
    pictures: tuple[Picture, ...]
    most_tokens: int
    """The maximum number of tokens of the greedy reply."""
    overlap: Literal["rouge_l", "rouge_l_recall"] = "rouge_l"
    """The ROUGE-L that the authors report for free replies other than clozes: F1 or recall."""
    read: Callable[[str], str | None] = field(default=str.strip, compare=False)
    """What the authors' code takes for the answer in a reply, of a choice; None if it cannot be parsed."""
    right: str = ""
    """What `read` finds in the right reply to a choice; empty: the answer."""
    asked: str = ""
    """The bare question, in a protocol that grades answers by how likely they are (CLEAR)."""
    graded_in: str = ""
    """The set in which these are compared, beside the role of the question; empty in other protocols."""
    tokenized_twice: bool = False
    """Whether the prompt's tokens, its beginning included, are written out and tokenized again."""

    def __post_init__(self) -> None:
        if self.text.count(IMAGE) != len(self.pictures):
            raise ValueError(
                f"{self.question.id}: {self.text.count(IMAGE)} places for {len(self.pictures)} pictures in its prompt"
            )


@runtime_checkable
class OfficialProtocol(Protocol):
    """A benchmark with an official protocol."""

    def released(self, split: Split, folder: Path, seed: int) -> Iterator[OfficialPrompt]:
        """Every question of a split as its authors ask it; the seed chooses few-shot examples and test pictures.

        `folder` is that of generated files.
        """
        ...
