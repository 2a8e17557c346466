"""Several drawn replies to each question: what a model may say, where greedy scoring has what it says first.

The random numbers of a question depend on the question and a seed alone, not on the model, the batch or the other
questions: models that are asked with one seed are compared draw by draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from study.core.hashing import content_key
from study.data.benchmark import Question
from study.evaluation.scoring import MAX_NEW_TOKENS, per_question
from study.model.decoding import REPLIES_PER_ROW, sampled_replies
from study.model.packing import Batch, begun
from study.model.vlm import VLM


def sampled(
    vlm: VLM, questions: Sequence[Question], draws: int, *, seed: int, temperature: float = 1.0
) -> dict[str, list[str]]:
    """`draws` independent replies to each question, as long as greedy ones may be, by question id."""

    def ask(batch: Batch, asked: Sequence[Question]) -> list[list[str]]:
        numbers = torch.stack([_uniforms(question, draws, seed) for question in asked])
        return sampled_replies(vlm, batch, range(len(asked)), begun(vlm, batch), numbers, temperature)

    grows = max(draws, REPLIES_PER_ROW) * MAX_NEW_TOKENS
    return per_question(vlm, questions, ask, lambda question: (), grows=grows)


def _uniforms(question: Question, draws: int, seed: int) -> Tensor:
    """The numbers in [0, 1) that decide the replies to a question, (draws, most tokens)."""
    generator = torch.Generator().manual_seed(int(content_key([seed, question.id]), 16))
    return torch.rand(draws, MAX_NEW_TOKENS, dtype=torch.float64, generator=generator)
