"""Likelihoods of the answers of a packed batch, in nats. Shapes as in `study.model`."""

from __future__ import annotations

import torch
from torch import Tensor

from study.model.packing import Batch, logits
from study.model.vlm import VLM


def logps(vlm: VLM, batch: Batch) -> Tensor:
    """The log-probability of each answer token, (T,)."""
    return token_logps(logits(vlm, batch), batch)


def answer_logps(vlm: VLM, batch: Batch) -> Tensor:
    """The log-probability of each whole answer, (A,): a sum over its tokens, including its end token."""
    return answer_sums(logps(vlm, batch), batch)


def cross_entropy(vlm: VLM, batch: Batch) -> Tensor:
    """The mean negative log-likelihood of the answer tokens, a scalar."""
    return -logps(vlm, batch).mean()


def token_logps(logits_TV: Tensor, batch: Batch) -> Tensor:
    """The log-probability of each answer token, (T,), in nats."""
    return logits_TV.log_softmax(-1).gather(1, batch.target[:, None]).squeeze(1)


def answer_sums(values_T: Tensor, batch: Batch) -> Tensor:
    """Sum a per-token quantity over each answer, (A,)."""
    return torch.zeros(batch.answers, dtype=values_T.dtype, device=values_T.device).index_add(0, batch.owner, values_T)


def answer_lengths(batch: Batch) -> Tensor:
    """The number of tokens of each answer, (A,)."""
    return torch.bincount(batch.owner, minlength=batch.answers)
