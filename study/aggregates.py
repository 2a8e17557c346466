"""How values of single questions become one number: the formulas of papers, on plain arrays."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

NAN = float("nan")


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
