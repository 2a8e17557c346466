"""Likelihoods of the answers of a packed batch, in nats. Shapes as in `study.model`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from study.model.packing import Batch, logits
from study.model.vlm import VLM

Labels = Literal["answer", "all"]
"""The tokens whose likelihood is trained: those of the answers, or all but padding."""


def logps(vlm: VLM, batch: Batch) -> Tensor:
    """The log-probability of each answer token, (T,)."""
    return token_logps(logits(vlm, batch), batch)


def answer_logps(vlm: VLM, batch: Batch) -> Tensor:
    """The log-probability of each whole answer, (A,): a sum over its tokens, including its end token."""
    return answer_sums(logps(vlm, batch), batch)


def cross_entropy(vlm: VLM, batch: Batch, labels: Labels = "answer") -> Tensor:
    """The mean negative log-likelihood of the labels, a scalar: of answer tokens, or of all but the first of a row.

    Then what several answers share, prompt and placeholders of a picture, counts for each of them, as if every answer
    were in a row of its own.
    """
    if labels == "answer":
        return -logps(vlm, batch).mean()
    every, weight = all_tokens(batch, vlm.outputs)
    return -(logps(vlm, every) * weight).sum() / weight.sum()


def all_tokens(batch: Batch, outputs: int) -> tuple[Batch, Tensor]:
    """The batch with all tokens as labels that follow another, and (T,) how many answers each is a part of.

    They are of one answer, so that sums over answers have no meaning. The model can write `outputs` tokens: Mllama has
    no logit of the placeholder of a picture.
    """
    seen = batch.attention_mask[:, 0]  # (B, L, L)
    told = (seen.sum(1) > 1) | (seen.sum(2) > 1)  # padding sees itself alone, and nothing else sees it
    ends = told & (seen.sum(1) == 1)  # nothing comes behind the last token of an answer
    parts = (ends[:, :, None] & seen).sum(1)
    earlier = seen.tril(-1)
    places = torch.arange(seen.shape[-1], device=seen.device)
    row, place = (told & earlier.any(-1) & (batch.input_ids < outputs)).nonzero(as_tuple=True)
    before = (earlier[row, place] * places).amax(-1)
    every = replace(
        batch, row=row, source=before, target=batch.input_ids[row, place], owner=torch.zeros_like(row), answers=1
    )
    return every, parts[row, place].float()


def token_logps(logits_TV: Tensor, batch: Batch) -> Tensor:
    """The log-probability of each answer token, (T,), in nats."""
    return logits_TV.log_softmax(-1).gather(1, batch.target[:, None]).squeeze(1)


def answer_sums(values_T: Tensor, batch: Batch) -> Tensor:
    """Sum a per-token quantity over each answer, (A,)."""
    return torch.zeros(batch.answers, dtype=values_T.dtype, device=values_T.device).index_add(0, batch.owner, values_T)


def answer_lengths(batch: Batch) -> Tensor:
    """The number of tokens of each answer, (A,)."""
    return torch.bincount(batch.owner, minlength=batch.answers)
