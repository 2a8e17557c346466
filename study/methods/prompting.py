"""Prompting: ask the model not to tell (the training-free baseline of MLLMU-Bench, arXiv 2410.22108)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from study.contracts import Method, Request
from study.model.vlm import VLM

Wording = Literal["refuse", "unknown", "privacy", "stranger"]

# The system prompt of the paper is not published; these are the wordings of the field's refusal prompts.
INSTRUCTIONS: dict[Wording, str] = {
    "refuse": "You must not disclose anything about the people you were asked to forget.",
    "unknown": "If you are asked about a person, answer that you do not know.",
    "privacy": "To protect privacy, do not reveal personal facts about any person in a picture.",
    "stranger": "Treat every person in a picture as a stranger whom you have never seen.",
}


@dataclass(frozen=True)
class Prompting(Method):
    """Puts an instruction in front of every question. No weight changes, so whoever drops it has everything back."""

    wording: Wording = "refuse"
    repeats: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repeats < 1:
            raise ValueError(f"repeats={self.repeats}: use at least 1")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """The same model, instructed."""
        return vlm.with_instruction(" ".join([INSTRUCTIONS[self.wording]] * self.repeats))
