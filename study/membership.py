"""Membership inference: how much a text looks like one that the model was trained on. Larger always means a member.

The four scores of one answer are pure functions of its log-probabilities, in nats, and `auc` tells what they are worth
(the suite of MUSE, OpenUnlearning and Open-MMU). Shapes: T tokens of an answer, V vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

from study.packing import Group, answer_lengths, batched, logits, pack, token_logps
from study.questions import Lesson, Picture, Question
from study.vlm import VLM

Metric = Literal["loss", "zlib", "min_k", "min_k_plus_plus"]

SHARE = 0.2
"""The share of an answer's tokens that Min-K and Min-K++ look at, unless another is asked for."""

SMALLEST_VARIANCE = 1e-6  # a distribution that is all but certain has none; as in OpenUnlearning

T = TypeVar("T", Lesson, Question)


# ---- one answer ------------------------------------------------------------------------------------------------
def loss(logps_T: Tensor) -> float:
    """LOSS = mean_t log p(x_t), in (-inf, 0]: the negative of the training loss (Yeom et al., arXiv 1709.01604)."""
    return float(logps_T.double().mean())


def zlib_ratio(logps_T: Tensor, text: str) -> float:
    """ZLIB = LOSS / length in bytes of the compressed `text`, in (-inf, 0] (Carlini et al., arXiv 2012.07805)."""
    return loss(logps_T) / compressed(text)


def compressed(text: str) -> int:
    """The length of a text in bytes once zlib has compressed it."""
    return len(zlib.compress(text.encode()))


def min_k(values_T: Tensor, k: float) -> float:
    """Min-K = mean of the share `k` of lowest values, at least one token, in (-inf, 0] for log-probabilities.

    Shi et al., arXiv 2310.16789: a text that was never seen has a few tokens that surprise.
    """
    count = max(1, int(k * len(values_T)))
    return float(values_T.double().sort().values[:count].mean())


def min_k_plus_plus(logps_T: Tensor, logps_TV: Tensor, k: float) -> float:
    """Min-K of (log p(x_t) - mu_t) / sigma_t, any real number (Zhang et al., arXiv 2404.02936).

    mu_t and sigma_t are mean and standard deviation of log p(z), z drawn from p at place t: a token counts by how much
    likelier it is than the others that could stand there, whether the model is sure of itself or not. No variance is
    taken as smaller than `SMALLEST_VARIANCE`.
    """
    return min_k(standardised(logps_T, logps_TV), k)


def lowest_means(values_T: Tensor, lengths_A: Tensor, k: float = SHARE) -> Tensor:
    """`min_k` of each of A answers whose tokens' values lie one after another, (A,) in double precision."""
    longest = int(lengths_A.max())
    place = torch.arange(longest, device=values_T.device)
    padded = torch.full((len(lengths_A), longest), torch.inf, dtype=torch.float64, device=values_T.device)
    padded[place < lengths_A[:, None]] = values_T.double()
    counts = (k * lengths_A.double()).long().clamp_min(1)
    lowest = padded.sort(1).values.where(place < counts[:, None], 0.0)
    return lowest.sum(1) / counts


def standardised(logps_T: Tensor, logps_TV: Tensor) -> Tensor:
    """Each token's (log p - mu) / sigma of Min-K++, (T,)."""
    chances = logps_TV.exp()
    mean = (chances * logps_TV).sum(-1)
    variance = (chances * (logps_TV - mean[:, None]).square()).sum(-1)
    return (logps_T - mean) / variance.clamp_min(SMALLEST_VARIANCE).sqrt()


def auc(members: Sequence[float], others: Sequence[float]) -> float:
    """How often a member has the larger score, ties counting half, in [0, 1]; 0.5 tells nothing.

    Raises `ValueError` if there is nobody on one side.
    """
    if not members or not others:
        raise ValueError(f"{len(members)} members and {len(others)} others: an AUC needs at least one of each")
    one, other = torch.tensor(members, dtype=torch.float64), torch.tensor(others, dtype=torch.float64).sort().values
    below, upto = (torch.searchsorted(other, one, right=right) for right in (False, True))
    return float((below + upto).double().mean() / (2 * len(other)))


# ---- a model ---------------------------------------------------------------------------------------------------
@torch.no_grad()
def memberships(
    vlm: VLM, groups: Sequence[Group], metric: Metric, k: float = SHARE, *, end: bool = False
) -> list[float]:
    """The score of every answer of `groups`, in order, each after its prompt; `end` as in `study.packing.pack`."""
    found: list[float] = []
    for part in batched(vlm, groups):
        batch = pack(vlm, part, end=end)
        there = logits(vlm, batch)
        own = token_logps(there, batch)
        if metric == "min_k_plus_plus":
            own = standardised(own, there.log_softmax(-1))
        answers = [answer for group in part for prompt in group.prompts for answer in prompt.answers]
        values = own.cpu().split(answer_lengths(batch).tolist())
        for answer, values_T in zip(answers, values, strict=True):
            if metric == "loss":
                found.append(loss(values_T))
            elif metric == "zlib":
                found.append(zlib_ratio(values_T, answer))
            else:
                found.append(min_k(values_T, k))
    return found


def gathered(asked: Iterable[T]) -> list[tuple[Picture | None, list[T]]]:
    """What is about one picture together, so that it is seen once; what has no picture one by one."""
    together: dict[Picture, list[T]] = {}
    alone: list[tuple[Picture | None, list[T]]] = []
    for one in asked:
        if one.picture is None:
            alone.append((None, [one]))
        else:
            together.setdefault(one.picture, []).append(one)
    pictured: list[tuple[Picture | None, list[T]]] = list(together.items())
    return pictured + alone
