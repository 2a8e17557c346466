"""The figure of requests one after another."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import seaborn as sns  # type: ignore[import-untyped, unused-ignore]
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import sequences, words
from analysis.folder import Study
from analysis.style import DASHES, GREY, INK, MARKERS, Look, Plot, grid, legend, line, mark

RETAIN = Look(INK, "s", ":", 3.5)
AT_ONCE = 0.7
"""How far right of the last request the same people in one request are drawn."""


def data(study: Study) -> pd.DataFrame:
    """The picture questions of every winner whose requests came in turn; of several sequences the longest."""
    found = sequences.table(study)
    longest = found.groupby(["method", "ratio"])["requests"].transform("max")
    asked = (found["modality"] == "image_text") & (
        (found["group"] == "retain") | found["group"].str.startswith("request")
    )
    return found[(found["requests"] == longest) & asked].reset_index(drop=True)


def draw(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A small panel for each winner: the people of each request and the retained, after every request."""
    order = {method: place for place, method in enumerate(methods)}
    cases = sorted(set(zip(data["ratio"], data["method"], strict=True)), key=lambda c: (c[0], order[c[1]]))
    groups = sorted((g for g in data["group"].unique() if g != "retain"), key=lambda g: int(g.split()[1]))
    looks = {group: _look(number, len(groups)) for number, group in enumerate(groups)} | {"retain": RETAIN}
    figure, axes = grid(len(cases), 1.5, "requests done", "accuracy")
    for axis, (ratio, method) in zip(axes, cases, strict=True):
        mine = data[(data["ratio"] == ratio) & (data["method"] == method)]
        _panel(axis, mine, looks)
        ended = ", diverged" if (mine["diverged"] != "").any() else ""
        axis.set_title(words.wrapped(f"{words.method(method)}, {ratio} %{ended}", 26), fontsize=7)
    marks = [mark(group if group == "retain" else f"people of {group}", how, line=True) for group, how in looks.items()]
    band = Line2D([], [], color=GREY, linewidth=5, alpha=0.5, label="reference, forget people")
    once = Line2D(
        [], [], color=INK, marker="o", markerfacecolor="none", linestyle="", markersize=4, label="all at once"
    )
    legend(figure, pd.Series(dtype=str), methods, [*marks, once, band])
    return figure


def _panel(axis: Axes, mine: pd.DataFrame, looks: dict[str, Look]) -> None:
    requests = int(mine["requests"].max())
    bars = mine[(mine["state"] == "reference") & (mine["group"] != "retain")]
    if len(bars):
        axis.axhspan(bars["mean"].min() - 0.008, bars["mean"].max() + 0.008, color=GREY, alpha=0.4, linewidth=0)
    for group, how in looks.items():
        own = mine[mine["group"] == group]
        turns = own[own["state"] == "in turn"].sort_values("done")
        line(axis, turns["done"], turns["mean"], how)
        once = own[own["state"] == "at once"]
        axis.plot(
            once["done"] + AT_ONCE,
            once["mean"],
            marker=how.marker,
            linestyle="",
            color=how.color,
            markersize=4,
            mfc="none",
            mew=0.9,
        )
    axis.set(ylim=(-0.04, 1.04), xlim=(-0.25, requests + AT_ONCE + 0.3))
    axis.set_xticks([*range(requests + 1), requests + AT_ONCE], [*map(str, range(requests + 1)), "all"])


def _look(number: int, count: int) -> Look:
    shades = sns.color_palette("viridis", max(count, 2))
    return Look(shades[number], MARKERS[number % len(MARKERS)], DASHES[number % len(DASHES)], 3.5)


PLOTS = (
    Plot("sequence",
         "Requests one after another: accuracy on the pictures of the people of each request, and of the retained, "
         "after each request. The grey band is the level of the reference, which never saw them; hollow marks are the "
         "same winner with everybody in one request. A line that rises again is knowledge that a later request brought "
         "back.",
         data, draw),
)  # fmt: skip
