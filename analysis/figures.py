"""The figures of the paper: for each, a function that gives its data and one that draws it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import pareto, robustness, table
from analysis.folder import Study
from analysis.style import BLIND, COLUMN, GREY, INK, LINE, YARDSTICKS, Look, legend, line, look, mark, panels, styled

DPI = 300
NAMES = {"image_text": "image", "text": "text", "person": "held-out people", "fact": "held-out facts"}


class Plot(NamedTuple):
    """One figure: its file name, what to say under it, its data and how to draw them."""

    name: str
    caption: str
    data: Callable[[Study], pd.DataFrame]
    draw: Callable[[pd.DataFrame, Sequence[str]], Figure]


class Drawn(NamedTuple):
    """A figure on disk, with the data it shows."""

    plot: Plot
    png: Path
    data: pd.DataFrame


def save(study: Study, folder: Path) -> list[Drawn]:
    """Draw every figure that has data, as PNG and PDF; figures without data are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    for plot in PLOTS:
        png, pdf = folder / f"{plot.name}.png", folder / f"{plot.name}.pdf"
        png.unlink(missing_ok=True)
        pdf.unlink(missing_ok=True)
        if (data := plot.data(study)).empty:
            continue
        with styled():
            figure = plot.draw(data, study.methods)
            FigureCanvasAgg(figure)
            figure.savefig(png, dpi=DPI)
            figure.savefig(pdf, metadata={"CreationDate": None})
        done.append(Drawn(plot, png, data))
    return done


def trade_off_data(study: Study) -> pd.DataFrame:
    """Completed searched trials with their objectives, and vanilla and the reference on the same axes."""
    trials = table.trials(study).dropna(subset=["forgetting", "utility"])
    shown = trials[trials["number"].notna() | (trials["kind"] != "method")]
    return shown[["method", "ratio", "kind", "forgetting", "utility", "front", "winner"]].reset_index(drop=True)


def draw_trade_off(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Forgetting against utility: all trials pale, the front of each method strong, its winner ringed."""
    figure, axes = panels(data["ratio"], rows=1, height=2.5)
    ring = Look(INK, "o", "", 8)
    for axis, (ratio, group) in zip(axes[0], data.groupby("ratio"), strict=True):
        for method, mine in group[group["kind"] == "method"].groupby("method"):
            how = look(str(method), methods)
            axis.plot(mine["forgetting"], mine["utility"], how.marker, color=how.color, alpha=0.35, ms=3.2, mew=0)
            front = mine[mine["front"]].sort_values(["forgetting", "utility"])
            line(axis, front["forgetting"], front["utility"], how, drawstyle="steps-post", zorder=3)
            best = mine[mine["winner"]]
            axis.plot(best["forgetting"], best["utility"], "o", color=INK, markersize=ring.size, mfc="none", zorder=4)
        for kind, how in YARDSTICKS.items():
            bar = group[group["kind"] == kind]
            axis.plot(bar["forgetting"], bar["utility"], how.marker, color=how.color, markersize=how.size + 1.5,
                      mec="white", mew=0.5, zorder=5, clip_on=False)  # fmt: skip
        axis.set(title=f"forget {ratio} %", xlabel="distance to the reference \u2193")
    axes[0][0].set_ylabel("utility \u2191")
    marks = [mark("winner", ring, hollow=True), *(mark(kind, how) for kind, how in YARDSTICKS.items())]
    legend(figure, data.loc[data["kind"] == "method", "method"], methods, marks)
    return figure


def curve_data(study: Study) -> pd.DataFrame:
    """Accuracy on held-out people and facts at each attack step, for methods, control and ceiling."""
    curves = robustness.curves(study)
    return curves[curves["held_out"].isin(["person", "fact"])].reset_index(drop=True)


def draw_curves(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """One row for each attack and held-out group, one column for each ratio; the control is a grey band."""
    pairs = list(dict.fromkeys(zip(data["settings"], data["held_out"], strict=True)))
    groups = sorted(pairs, key=lambda pair: (pair[0], pair[1] != "person"))
    figure, axes = panels(data["ratio"], rows=len(groups), height=1.9)
    several = data["settings"].nunique() > 1
    for row, (settings, held_out) in zip(axes, groups, strict=True):
        for axis, ratio in zip(row, sorted(data["ratio"].unique()), strict=True):
            chosen = (data["settings"] == settings) & (data["held_out"] == held_out) & (data["ratio"] == ratio)
            _curves(axis, data[chosen], methods)
            what = "\n".join(textwrap.wrap(settings, 52)) if several else ""
            axis.set_title("\n".join(filter(None, [f"forget {ratio} %, {NAMES[held_out]}", what])))
        row[0].set_ylabel("accuracy")
    for axis in axes[-1]:
        axis.set_xlabel("optimiser steps of the attacker")
    band = Line2D([], [], color=GREY, linewidth=5, alpha=0.5, label="reference (control)")
    legend(figure, data["method"], methods, [band, mark("vanilla (ceiling)", YARDSTICKS["vanilla"], line=True)])
    return figure


def _curves(axis: Axes, data: pd.DataFrame, methods: Sequence[str]) -> None:
    axis.set(ylim=(-0.04, 1.04))
    for method, mine in data.groupby("method"):
        mine = mine.sort_values("step")
        if method == "reference":
            axis.fill_between(mine["step"], mine["low"], mine["high"], color=GREY, alpha=0.3, linewidth=0)
            axis.plot(mine["step"], mine["mean"], color=GREY, linewidth=1.6)
        else:
            line(axis, mine["step"], mine["mean"], look(str(method), methods))


def search_data(study: Study) -> pd.DataFrame:
    """The running hypervolume of each method and ratio."""
    return pareto.running_hypervolume(table.proposals(study))


def draw_search(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Hypervolume after each proposal: a step where a proposal improved the front."""
    figure, axes = panels(data["ratio"], rows=1, height=2.1)
    for axis, (ratio, group) in zip(axes[0], data.groupby("ratio"), strict=True):
        for method, mine in group.groupby("method"):
            every = max(1, math.ceil(len(mine) / 8))
            how = look(str(method), methods)
            line(axis, mine["trials"], mine["hypervolume"], how, drawstyle="steps-post", markevery=every)
        axis.set(title=f"forget {ratio} %", xlabel="proposals", ylim=(-0.03, 1.03))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set_ylabel("hypervolume \u2191")
    legend(figure, data["method"], methods, [])
    return figure


def score_data(study: Study) -> pd.DataFrame:
    """Classification accuracy of vanilla, the reference and the winners, with vanilla's blind level where known."""
    scores = table.scores(study)
    shown = scores[(scores["task"] == "classification") & (scores["measure"] == "score")]
    blind = table.blind(study)
    blind = blind[blind["method"] == "vanilla"].assign(modality="image_text").rename(columns={"mean": "blind"})
    place = ["ratio", "role", "modality"]
    return shown.merge(blind[[*place, "blind"]].astype({"blind": float}), on=place, how="left")


def draw_scores(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """One panel for each ratio, below one another: points with intervals, the blind level as a dashed bar."""
    ratios = sorted(data["ratio"].unique())
    figure = Figure(figsize=(2 * COLUMN + 0.2, 1.9 * len(ratios) + 0.5), layout="constrained")
    axes = figure.subplots(len(ratios), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    places = list(dict.fromkeys(zip(data["role"], data["modality"], strict=True)))
    for axis, ratio in zip(axes, ratios, strict=True):
        _scores(axis, data[data["ratio"] == ratio], places, [*YARDSTICKS, *methods], methods)
        axis.set(title=f"forget {ratio} %", ylabel="accuracy", ylim=(-0.04, 1.04), xlim=(-0.5, len(places) - 0.5))
        axis.set_xticks(range(len(places)), [f"{role}\n{NAMES[modality]}" for role, modality in places])
    bar = Line2D([], [], color=INK, linestyle=BLIND, linewidth=0.9, label="vanilla, grey pictures")
    marks = [*(mark(kind, how) for kind, how in YARDSTICKS.items()), bar]
    legend(figure, data["method"], methods, marks, lines=False)
    return figure


def _scores(
    axis: Axes, data: pd.DataFrame, places: list[tuple[str, str]], labels: list[str], methods: Sequence[str]
) -> None:
    present = [label for label in labels if (data["method"] == label).any()]
    for number, label in enumerate(present):
        mine = data[data["method"] == label].set_index(["role", "modality"]).reindex(pd.MultiIndex.from_tuples(places))
        shift = 0.8 * ((number + 0.5) / len(present) - 0.5)
        error = [(mine["mean"] - mine["low"]).clip(lower=0), (mine["high"] - mine["mean"]).clip(lower=0)]
        how = look(label, methods)
        axis.errorbar([place + shift for place in range(len(places))], mine["mean"], yerr=error, fmt=how.marker,
                      color=how.color, markersize=how.size, elinewidth=0.8, mec="white", mew=0.3)  # fmt: skip
    blind = data.groupby(["role", "modality"])["blind"].first()
    for place, group in enumerate(places):
        level = float(blind.get(group, math.nan))
        axis.plot([place - 0.42, place + 0.42], [level, level], color=INK, linestyle=BLIND, linewidth=0.9)
        axis.axvline(place + 0.5, color=LINE, linewidth=0.6)
    axis.grid(visible=False, axis="x")


PLOTS = (
    Plot("trade_off",
         "Forgetting against utility on the half of the questions that selects. Every searched trial is a point; lines "
         "are the Pareto fronts of each method, rings mark the winners. The ideal is the upper left corner.",
         trade_off_data, draw_trade_off),
    Plot("relearning",
         "Accuracy on what the attacker was not given, while it relearns. Only what rises above the control (the "
         "reference under the same attack, with its 95 % interval) was hidden and not forgotten.",
         curve_data, draw_curves),
    Plot("search",
         "What the search bought: the area that the trials so far dominate, with forgetting 1 and utility 0 as the "
         "worst point. Failed, diverged and repeated proposals add nothing.", search_data, draw_search),
    Plot("scores",
         "Accuracy on multiple-choice questions of the report half, with 95 % intervals over people. The dashed bar is "
         "what vanilla reaches when all pictures are grey.", score_data, draw_scores),
)  # fmt: skip
