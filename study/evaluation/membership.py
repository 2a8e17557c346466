"""Membership inference: how much a text looks like one that the model was trained on. Larger always means a member.

`memberships` gives the four scores of every answer of a batch, and `auc` tells what they are worth (the suite of MUSE,
OpenUnlearning and Open-MMU). Shapes: T answer tokens, A answers, V vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from study.core.errors import Refused
from study.model.likelihood import answer_lengths, answer_sums
from study.model.packing import Batch

Metric = Literal["loss", "zlib", "min_k", "min_k_plus_plus"]

SHARE = 0.2
"""The share of an answer's tokens that Min-K and Min-K++ look at, unless another is asked for."""

SMALLEST_VARIANCE = 1e-6  # a distribution that is all but certain has none; as in OpenUnlearning


class Memberships(NamedTuple):
    """The scores of A answers from their log-probabilities in nats, each (A,)."""

    loss: Tensor
    """Mean of log p(x_t), in (-inf, 0]: the negative of the training loss (Yeom et al., arXiv 1709.01604)."""
    zlib: Tensor
    """The same over the length in bytes of the compressed answer, in (-inf, 0] (Carlini et al., arXiv 2012.07805)."""
    min_k: Tensor
    """Mean of the share `k` of lowest log p(x_t), at least one token, in (-inf, 0].

    Shi et al., arXiv 2310.16789: a text that was never seen has a few tokens that surprise.
    """
    min_k_plus_plus: Tensor
    """Min-K of (log p(x_t) - mu_t) / sigma_t, any real number (Zhang et al., arXiv 2404.02936).

    mu_t and sigma_t are mean and standard deviation of log p(z), z drawn from p at place t: a token counts by how much
    likelier it is than the others that could stand there, whether the model is sure of itself or not.
    """


def memberships(logits_TV: Tensor, batch: Batch, answers: Sequence[str], k: float = SHARE) -> Memberships:
    """The scores of the answers of a batch, of which these are the texts, from the logits of their tokens."""
    logps_TV = logits_TV.log_softmax(-1)
    logps_T = logps_TV.gather(1, batch.target[:, None]).squeeze(1)
    lengths_A = answer_lengths(batch)
    means_A = answer_sums(logps_T, batch) / lengths_A
    bytes_A = torch.tensor([len(zlib.compress(answer.encode())) for answer in answers], device=logits_TV.device)
    return Memberships(
        means_A,
        means_A.double() / bytes_A,
        lowest_means(logps_T, lengths_A, k),
        lowest_means(standardized(logps_T, logps_TV), lengths_A, k),
    )


def lowest_means(values_T: Tensor, lengths_A: Tensor, k: float) -> Tensor:
    """The mean of the share `k` of lowest values of each answer, at least one, (A,) in double precision."""
    longest = int(lengths_A.max())
    place = torch.arange(longest, device=values_T.device)
    padded = torch.full((len(lengths_A), longest), torch.inf, dtype=torch.float64, device=values_T.device)
    padded[place < lengths_A[:, None]] = values_T.double()
    counts = (k * lengths_A.double()).long().clamp_min(1)
    lowest = padded.sort(1).values.where(place < counts[:, None], 0.0)
    return lowest.sum(1) / counts


def standardized(logps_T: Tensor, logps_TV: Tensor) -> Tensor:
    """Each token's (log p - mu) / sigma of Min-K++, (T,); no variance is taken as smaller than `SMALLEST_VARIANCE`."""
    chances = logps_TV.exp()
    mean = (chances * logps_TV).sum(-1)
    variance = (chances * (logps_TV - mean[:, None]).square()).sum(-1)
    return (logps_T - mean) / variance.clamp_min(SMALLEST_VARIANCE).sqrt()


def auc(members: Sequence[float], others: Sequence[float]) -> float:
    """How often a member has the larger score, ties counting half, in [0, 1]; 0.5 tells nothing.

    Raises `Refused` if there is nobody on one side.
    """
    if not members or not others:
        raise Refused(f"{len(members)} members and {len(others)} others: an AUC needs at least one of each")
    one, other = torch.tensor(members, dtype=torch.float64), torch.tensor(others, dtype=torch.float64).sort().values
    below, upto = (torch.searchsorted(other, one, right=right) for right in (False, True))
    return float((below + upto).double().mean() / (2 * len(other)))
