"""Fronts and the volume they dominate, per method and forget ratio."""

from __future__ import annotations

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study.metrics.objectives import front_mask

WORST = 1.0
"""Every coordinate of the reference point of the hypervolume, as a cost: forget gap 1, utility 0, recovery 1."""
PETA = 1e15


def costs(trials: pd.DataFrame) -> NDArray[np.float64]:
    """The objectives as costs, shape (n, 2) or (n, 3): forget gap, 1 - utility and recovery where there is one.

    All lie in [0, 1] and are minimized.
    """
    third = [trials["recovery"].to_numpy(float)] if "recovery" in trials else []
    return np.column_stack([trials["forget_gap"].to_numpy(float), 1.0 - trials["utility"].to_numpy(float), *third])


def on_front(trials: pd.DataFrame) -> pd.Series[bool]:
    """Whether a trial is on the front of its own method and ratio; trials without objectives never are."""
    found = pd.Series(False, index=trials.index, dtype=bool)
    for _, group in trials.groupby(["method", "ratio"]):
        found.loc[group.index] = front_mask(costs(group))
    return found


def hypervolume(points: NDArray[np.float64]) -> float:
    """The area or volume in [0, 1] that points of `costs` dominate up to `WORST`; 0 without a point."""
    valid = points[~np.isnan(points).any(axis=1)]
    return float(moocore.hypervolume(valid, ref=[WORST] * points.shape[1])) if len(valid) else 0.0


def running_hypervolume(proposals: pd.DataFrame) -> pd.DataFrame:
    """The hypervolume after each trial of each method and ratio, in the order in which the search proposed them.

    Columns method, ratio, trials (1, 2, ...), pflop, hypervolume. Duplicates, failures and divergences cost a trial and
    add nothing, as they did in the search; `pflop` is what the trials so far computed, from the column `work` of
    operations, NaN from the first on of which it is not known.
    """
    lines = []
    for (method, ratio), group in proposals.sort_values("number").groupby(["method", "ratio"], sort=True):
        points, work = costs(group), np.cumsum(group["work"].to_numpy(float)) / PETA
        lines += [
            {"method": method, "ratio": ratio, "trials": at + 1, "pflop": work[at],
             "hypervolume": hypervolume(points[: at + 1])}
            for at in range(len(points))
        ]  # fmt: skip
    return pd.DataFrame(lines, columns=["method", "ratio", "trials", "pflop", "hypervolume"])
