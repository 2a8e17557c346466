"""How far apart two samples of one number are, such as the truth ratios of two models on the same questions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 20
"""Cells of equal width on [0, 1] between which `jensen_shannon` tells samples apart."""


class KolmogorovSmirnov(NamedTuple):
    """The largest distance of two empirical distribution functions, in [0, 1], and its two-sided p-value."""

    statistic: float
    p: float


def kolmogorov_smirnov(first: ArrayLike, second: ArrayLike) -> KolmogorovSmirnov:
    """The two-sample test (Hodges 1958), exact where no values tie and conservative where some do; NaN for nobody.

    The p-value is the share of all orders of the pooled sample whose statistic is as large: `scipy.stats.ks_2samp`
    with method "exact". Infinite values are fine, the order alone counts.
    """
    one, two = np.sort(np.asarray(first, dtype=float)), np.sort(np.asarray(second, dtype=float))
    if not len(one) or not len(two):
        return KolmogorovSmirnov(float("nan"), float("nan"))
    pooled = np.concatenate([one, two])
    upto = [np.searchsorted(sample, pooled, side="right") for sample in (one, two)]
    gap = int(np.abs(upto[0] * len(two) - upto[1] * len(one)).max())
    return KolmogorovSmirnov(gap / (len(one) * len(two)), _as_far(len(one), len(two), gap))


def jensen_shannon(first: ArrayLike, second: ArrayLike) -> float:
    """The distance between histograms of two samples of numbers in [0, 1], in `BINS` cells; NaN for nobody.

    The square root of the divergence in bits (Endres & Schindelin 2003), in [0, 1]: 0 for equal histograms, 1 for
    histograms without a common cell. Two small samples of one distribution are at some distance, too.
    """
    samples = [np.asarray(sample, dtype=float) for sample in (first, second)]
    if not all(map(len, samples)):
        return float("nan")
    one, two = (np.histogram(sample, BINS, (0.0, 1.0))[0] / len(sample) for sample in samples)
    return math.sqrt(_divergence(one, two) / math.log(2.0))


def jensen_shannon_of_profiles(first: ArrayLike, second: ArrayLike) -> float:
    """The distance as CLEAR released it: each sample divided by its sum is taken for a distribution over questions.

    In [0, sqrt(ln 2)], NaN unless both are finite, as long as each other and not all 0. It compares question by
    question and is blind to scale: a model all of whose truth ratios are doubled is at distance 0.
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    usable = one.shape == two.shape and one.size > 0 and bool(np.isfinite([one, two]).all())
    if not usable or one.sum() == 0.0 or two.sum() == 0.0:
        return float("nan")
    return math.sqrt(_divergence(one / one.sum(), two / two.sum()))


def _divergence(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    """Jensen-Shannon divergence of two distributions over the same cells, in nats."""
    middle = (one + two) / 2
    parts = [p[p > 0] * np.log(p[p > 0] / middle[p > 0]) for p in (one, two)]
    return max(0.0, math.fsum(np.concatenate(parts)) / 2)


def _as_far(n: int, m: int, gap: int) -> float:
    """The share of the lattice paths from (0, 0) to (n, m) that come to a point (i, j) with |i m - j n| >= gap.

    By diagonals i + j = k: of the paths to (i, j), i / k come from (i - 1, j), so shares are never subtracted and
    small ones keep their digits.
    """
    if gap == 0:
        return 1.0
    i = np.arange(n + 1)
    share = np.zeros(n + 1)
    for k in range(1, n + m + 1):
        left = np.clip(i / k, 0.0, 1.0)
        share = left * np.concatenate([[0.0], share[:-1]]) + (1.0 - left) * share
        share[np.abs(i * m - (k - i) * n) >= gap] = 1.0
    return float(share[n])
