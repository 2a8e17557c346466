"""The figure of the metric check: how well each metric separates, and what fools it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import metric_check
from analysis.style import BLIND, COLUMN, GREY, INK, LINE, Look, Plot, mark

WIDEST = 1.5
"""Changes beyond this are drawn at the edge: they are many times a gap that is hardly there."""
MARKERS = {"quantized": Look("#0173b2", "s", ""), "relearned": Look("#de8f05", "D", "")}


def draw(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A line for each metric, the most trustworthy on top: a bar from 0.5 to its AUC, beside it both changes."""
    figure = Figure(figsize=(2 * COLUMN + 0.2, 0.17 * len(data) + 1.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for height, (_, line) in enumerate(data.iterrows()):
        color = INK if line["metric"] == metric_check.USUAL else GREY
        left.barh(height, line["auc"] - 0.5, left=0.5, height=0.6, color=color, alpha=0.45, linewidth=0)
        left.plot([line["auc_low"], line["auc_high"]], [height, height], color=color, linewidth=1.2)
        for place, (state, how) in zip((-0.15, 0.15), MARKERS.items(), strict=True):
            values = [float(line[f"{state}{end}"]) for end in ("", "_low", "_high")]
            mean, low, high = np.clip(values, -WIDEST, WIDEST)  # NaN stays and is not drawn
            right.plot([low, high], [height + place] * 2, color=how.color, linewidth=0.9)
            right.plot(mean, height + place, marker=how.marker, color=how.color, markersize=how.size, mec="white",
                       mew=0.4)  # fmt: skip
    left.axvline(0.5, color=INK, linewidth=0.8)
    left.axvline(metric_check.WEAK_AUC, color=INK, linestyle=BLIND, linewidth=0.8)
    left.set(xlim=(-0.02, 1.02), xlabel="AUC \u2191", ylim=(len(data) - 0.4, -0.6))
    left.set_yticks(range(len(data)), data["metric"].str.replace("_", " "))
    right.axvline(0.0, color=INK, linewidth=0.8)
    for end in (-metric_check.WEAK_CHANGE, metric_check.WEAK_CHANGE):
        right.axvline(end, color=INK, linestyle=BLIND, linewidth=0.8)
    right.set(xlim=(-WIDEST - 0.1, WIDEST + 0.1), xlabel="part of the gap that moves (0 is not fooled)")
    for axis in (left, right):
        axis.grid(axis="y", color=LINE)
        axis.tick_params(axis="y", length=0)
    marks = [mark(state, how) for state, how in MARKERS.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=2)
    return figure


PLOTS = (
    Plot("metric_check",
         "Every metric by how well it tells the models that know from those that do not (left; bars start at a coin's "
         "0.5, the dark one is multiple-choice accuracy) and by what part of that gap moves though nothing relevant "
         "was forgotten or learned (right): what vanilla loses by rounding, what the reference gains by relearning. "
         "Lines are 95 % intervals over people; beyond the dashed lines a metric is weak.",
         metric_check.trust, draw),
)  # fmt: skip
