"""How far apart two samples of one number are, such as the truth ratios of two models on the same questions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

BINS = 20
"""Cells of equal width on [0, 1] between which `jensen_shannon` tells samples apart."""


class KolmogorovSmirnov(NamedTuple):
    """The largest distance of two empirical distribution functions, in [0, 1], and its two-sided p-value."""

    statistic: float
    p: float


def kolmogorov_smirnov(first: ArrayLike, second: ArrayLike) -> KolmogorovSmirnov:
    """The two-sample test (Hodges 1958) of `scipy.stats.ks_2samp`; NaN for nobody.

    The p-value is exact up to 10,000 values where no values tie and conservative where some do. Infinite values are
    fine, the order alone counts.
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if not len(one) or not len(two):
        return KolmogorovSmirnov(float("nan"), float("nan"))
    found = ks_2samp(one, two)
    return KolmogorovSmirnov(float(found.statistic), float(found.pvalue))


def jensen_shannon(first: ArrayLike, second: ArrayLike) -> float:
    """The distance between histograms of two samples of numbers in [0, 1], in `BINS` cells; NaN for nobody.

    The square root of the divergence in bits (Endres & Schindelin 2003), in [0, 1]: 0 for equal histograms, 1 for
    histograms without a common cell. Two small samples of one distribution are at some distance, too.
    """
    samples = [np.asarray(sample, dtype=float) for sample in (first, second)]
    if not all(map(len, samples)):
        return float("nan")
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
        return float("nan")
    return _distance(one, two)


def _distance(one: NDArray[np.float64], two: NDArray[np.float64], base: float | None = None) -> float:
    with np.errstate(invalid="ignore"):  # by rounding, the divergence of equal distributions may come out below 0
        return float(np.nan_to_num(jensenshannon(one, two, base)))
