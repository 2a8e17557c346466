"""The formulas of metrics: of one question's answers, of many questions, and of two models.

Plain numbers and arrays. Formulas of one question take the mean log-probability per token of each answer, in nats: the
log of the likelihood p(answer | question) ^ (1 / its tokens). They are NaN where there is no wrong answer to compare
with, and where the model gave NaN.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

NAN = float("nan")
BINS = 20
"""Cells of equal width, 0.05, on [0, 1] of the histograms of `jensen_shannon`. Chosen by trial on the tiny study: more
would be nearly empty with its 80 multiple-choice questions about twelve people."""


def average(values: Collection[float]) -> float:
    """The mean; from an exact sum, so it does not depend on the order. NaN for nothing."""
    return math.fsum(values) / len(values) if len(values) else NAN


def harmonic(parts: Sequence[float]) -> float:
    """The harmonic mean of shares: 0 if one is 0, NaN without any or if one is NaN."""
    if not parts or any(map(math.isnan, parts)):
        return NAN
    return 0.0 if min(parts) == 0.0 else len(parts) / math.fsum(1.0 / part for part in parts)


def contraharmonic(a: float, b: float) -> float:
    """(a^2 + b^2) / (a + b) of two shares, nearer to the larger one; 0 for two zeros."""
    return (a * a + b * b) / (a + b) if a + b != 0.0 else 0.0


def truth_ratio_forget(ratios: ArrayLike) -> Values:
    """min(R, 1 / R) of truth ratios, in [0, 1]: 1 where right and wrong are as likely. Both orientations give it."""
    r = np.asarray(ratios, dtype=float)
    return np.asarray(np.where(r > 1.0, 1.0 / np.maximum(r, 1.0), r))  # NaN stays, an infinite R gives 0


def truth_ratio_utility(ratios: ArrayLike) -> Values:
    """max(0, 1 - R) of truth ratios that are wrong over right, as in TOFU and in rows; in [0, 1], 1 knows."""
    return np.asarray(np.maximum(0.0, 1.0 - np.asarray(ratios, dtype=float)))


def bounded(ratios: ArrayLike) -> Values:
    """R / (1 + R) of truth ratios, in [0, 1]: 0.5 where right and wrong are as likely; an infinite R gives 1."""
    return np.asarray(1.0 - 1.0 / (1.0 + np.asarray(ratios, dtype=float)))


def complement(shares: ArrayLike) -> Values:
    """1 - share."""
    return np.asarray(1.0 - np.asarray(shares, dtype=float))


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


def leak_at_k(leaks: int, draws: int, k: int) -> float:
    """The probability that one of `k` replies leaks, estimated from `draws` replies of which `leaks` do, in [0, 1].

    1 - C(n - c, k) / C(n, k), the share of all choices of `k` draws that hold a leak: its mean over draws is exactly
    1 - (1 - q)^k where each reply leaks with probability q (Chen et al., arXiv 2107.03374; leak@k of arXiv 2511.04934).
    Raises `ValueError` unless 0 <= leaks <= draws and 1 <= k <= draws.
    """
    if not (0 <= leaks <= draws and 1 <= k <= draws):
        raise ValueError(f"leaks={leaks}, draws={draws}, k={k}: use 0 <= leaks <= draws and 1 <= k <= draws")
    return 1.0 - math.comb(draws - leaks, k) / math.comb(draws, k)


def any_of(chances: Collection[float]) -> float:
    """The probability that at least one of independent events happens; 0 for none."""
    return 1.0 - math.prod(1.0 - chance for chance in chances)


class KolmogorovSmirnov(NamedTuple):
    """The largest distance of two empirical distribution functions, in [0, 1], and its two-sided p-value."""

    statistic: float
    p: float


def kolmogorov_smirnov(first: ArrayLike, second: ArrayLike) -> KolmogorovSmirnov:
    """The two-sample test (Hodges 1958) of `scipy.stats.ks_2samp`; NaN for nobody.

    The p-value is exact up to 10,000 values where no values tie and conservative where some do. Infinite values are
    fine, the order alone counts.
    """
    from scipy.stats import ks_2samp  # scipy.stats takes most of a second to import

    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if not len(one) or not len(two):
        return KolmogorovSmirnov(NAN, NAN)
    found = ks_2samp(one, two)
    return KolmogorovSmirnov(float(found.statistic), float(found.pvalue))


def jensen_shannon(first: ArrayLike, second: ArrayLike) -> float:
    """The distance between histograms of two samples of numbers in [0, 1], in `BINS` cells; NaN for nobody.

    The square root of the divergence in bits (Endres & Schindelin 2003), in [0, 1]: 0 for equal histograms, 1 for
    histograms without a common cell. Two small samples of one distribution are at some distance, too.
    """
    samples = [np.asarray(sample, dtype=float) for sample in (first, second)]
    if not all(map(len, samples)):
        return NAN
    one, two = (np.histogram(sample, BINS, (0.0, 1.0))[0] / len(sample) for sample in samples)
    return _distance(one, two, base=2)


def jensen_shannon_of_profiles(first: ArrayLike, second: ArrayLike) -> float:
    """The distance as CLEAR released it: each sample divided by its sum is taken for a distribution over questions.

    In [0, sqrt(ln 2)], NaN unless both are finite, as long as each other and not all 0. It compares question by
    question and is blind to scale: a model all of whose truth ratios are doubled is at distance 0.
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    usable = one.shape == two.shape and one.size > 0 and bool(np.isfinite([one, two]).all())
    if not usable or one.sum() == 0.0 or two.sum() == 0.0:
        return NAN
    return _distance(one, two)


def wasserstein(first: ArrayLike, second: ArrayLike) -> Values:
    """The Wasserstein-1 distance of samples along the first axis: of (n, ...) to (k n, ...), for a whole k; (...).

    The mean absolute difference of the sorted samples, each value of the first standing for k of the second. NaN are
    no values: for each of the first there must be k of the second. NaN for nobody.
    """
    one, two = np.sort(np.asarray(first, dtype=float), axis=0), np.sort(np.asarray(second, dtype=float), axis=0)
    apart = np.abs(np.repeat(one, len(two) // max(1, len(one)), axis=0) - two)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(apart, axis=0) / np.isfinite(apart).sum(axis=0))


def _distance(one: NDArray[np.float64], two: NDArray[np.float64], base: float | None = None) -> float:
    from scipy.spatial.distance import jensenshannon

    with np.errstate(invalid="ignore"):  # by rounding, the divergence of equal distributions may come out below 0
        return float(np.nan_to_num(jensenshannon(one, two, base)))


def _useless(one: float, others: Sequence[float]) -> bool:
    return not others or math.isnan(one) or any(map(math.isnan, others))
