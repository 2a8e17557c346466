"""The figure of a pool: every world and the mean over worlds, for each measure."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analysis import naming
from analysis.plots import Plot
from analysis.pool import reading
from analysis.pool.tables import SHOWN
from analysis.study_folder import StudyResults
from analysis.style import GREY, INK, LINE, TEXT, look


def plot(table: pd.DataFrame, pool: pd.DataFrame, studies: Sequence[StudyResults]) -> Plot:
    """The figure."""
    return Plot(
        "pool",
        "Forget gap, utility and distance to the ideal point of each method's winner: a small point for each study, "
        "and the mean with its 95 % interval over worlds; and what the worst attack on it brings back, above control. "
        "Grey lines: the noise floor of each world.",
        points(table, pool, studies),
        draw,
    )


def points(table: pd.DataFrame, pool: pd.DataFrame, studies: Sequence[StudyResults]) -> pd.DataFrame:
    """The measures of each study, those of the pool, and the noise floors, in one long table."""
    place = ["ratio", "method", "world", "key"]
    each = table.melt(place, list(SHOWN), "measure", "mean").dropna(subset=["mean"])
    means = [
        pool[["ratio", "method"]].assign(
            measure=name, mean=pool[name], low=pool[f"{name}_low"], high=pool[f"{name}_high"], world="mean", key=""
        )
        for name in SHOWN
    ]
    floors = reading.worlds(studies)[["ratio", "world", "noise_floor"]].rename(columns={"noise_floor": "mean"})
    floors = floors.dropna().assign(method="reference", measure="forget_gap", key="")
    return pd.concat([each, *means, floors], ignore_index=True)


def draw(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A row of panels for each ratio, one for each measure; a line for each method, the nearest on top."""
    shown = [name for name in SHOWN if data.loc[data["measure"] == name, "mean"].notna().any()]
    ratios = sorted(data["ratio"].unique())
    order = {ratio: _order(data, ratio) for ratio in ratios}
    heights = [0.24 * len(order[ratio]) + 0.6 for ratio in ratios]
    figure = Figure(figsize=(TEXT, sum(heights)), layout="constrained")
    axes = figure.subplots(len(ratios), len(shown), squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, ratio in zip(axes, ratios, strict=True):
        for axis, name in zip(row, shown, strict=True):
            mine = data[(data["ratio"] == ratio) & (data["measure"] == name)]
            for floor in mine.loc[mine["method"] == "reference", "mean"]:
                axis.axvline(floor, color=GREY, linewidth=0.6, alpha=0.7, zorder=0)
            for at, method in enumerate(order[ratio]):
                axis.axhline(at, color=LINE, linewidth=0.6, zorder=0)
                own, how = mine[mine["method"] == method], look(method, methods)
                worlds, total = own[own["world"] != "mean"], own[own["world"] == "mean"]
                axis.plot(worlds["mean"], [at] * len(worlds), how.marker, color=how.color, ms=2.6, mew=0, alpha=0.55)
                axis.plot([total["low"], total["high"]], [at, at], color=INK, linewidth=0.9)
                axis.plot(total["mean"], [at], how.marker, color=how.color, ms=how.size + 1, mew=0.6, mec=INK, zorder=3)
            axis.set(xlabel=f"{SHOWN[name]}, {ratio} %", ylim=(len(order[ratio]) - 0.5, -0.5))
            axis.set_yticks(range(len(order[ratio])), [])
        row[0].set_yticks(range(len(order[ratio])), [naming.method(method) for method in order[ratio]])
    return figure


def _order(data: pd.DataFrame, ratio: int) -> list[str]:
    """The methods of one ratio, the nearest first."""
    means = data[(data["ratio"] == ratio) & (data["measure"] == "distance") & (data["world"] == "mean")]
    return [str(method) for method in means.sort_values(["mean", "method"])["method"]]
