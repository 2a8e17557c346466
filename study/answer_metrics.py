"""What the likelihoods of one question's answers say: how true the right one seems, how exposed it is.

Arithmetic on plain numbers, each the mean log-probability per token of one answer, in nats: the log of the likelihood
p(answer | question) ^ (1 / its tokens). A metric is NaN where there is no wrong answer to compare with, and where the
model gave NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

NAN = float("nan")


def truth_ratio(paraphrased_mean_logp: float, perturbed_mean_logps: Sequence[float]) -> float:
    """R = mean likelihood of the wrong answers / that of the right one in other words, in [0, inf].

    The orientation of TOFU (arXiv 2401.06121): wrong over right, so a model that knows has R near 0 and one that
    cannot tell has R near 1. CLEAR's code (arXiv 2410.18057) writes right over wrong.
    """
    if _useless(paraphrased_mean_logp, perturbed_mean_logps):
        return NAN
    largest = max(perturbed_mean_logps)
    if math.isinf(largest) or math.isinf(paraphrased_mean_logp):
        return NAN if largest == paraphrased_mean_logp else 0.0 if largest < paraphrased_mean_logp else math.inf
    total = math.fsum(math.exp(logp - largest) for logp in perturbed_mean_logps)
    try:
        return math.exp(largest - paraphrased_mean_logp) * (total / len(perturbed_mean_logps))
    except OverflowError:
        return math.inf


def exposure(right_mean_logp: float, other_mean_logps: Sequence[float]) -> float:
    """log2 of the number of candidates - log2 of the right one's rank, in bits (Carlini et al., arXiv 1802.08232).

    In [0, log2 of the number of candidates]; the right answer is one of them. It ranks behind those that it ties
    with, so a model that gives all the same likelihood exposes nothing.
    """
    if _useless(right_mean_logp, other_mean_logps):
        return NAN
    rank = 1 + sum(other >= right_mean_logp for other in other_mean_logps)
    return math.log2(1 + len(other_mean_logps)) - math.log2(rank)


def beats(right: float, others: Sequence[float]) -> float:
    """The share of `others` that lie below `right`, ties counting half, in [0, 1]: the AUC within one question."""
    if _useless(right, others):
        return NAN
    return math.fsum(0.5 * ((other < right) + (other <= right)) for other in others) / len(others)


def _useless(one: float, others: Sequence[float]) -> bool:
    return not others or math.isnan(one) or any(map(math.isnan, others))
