"""The figures of the paper: for each, a function that gives its data and one that draws it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import attack_figures, metric_check_figure, pareto, sequence_figures, table, warm_start_figure, words
from analysis.folder import Study
from analysis.style import BLIND, COLUMN, INK, YARDSTICKS, Look, Plot, legend, line, look, mark, panels, styled

DPI = 300
NAME_WIDTH = 30
"""Characters in a line of a method's name beside a panel."""
ACROSS = {"forgetting": "distance to the reference \u2193", "recovery": "back under the attack of the search \u2193"}
"""What is shown against the utility, where it is an objective."""
RING = Look(INK, "o", "", 8)


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
            figure.set_dpi(DPI)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, for both files
            figure.savefig(png, dpi=DPI)
            figure.savefig(pdf, metadata={"CreationDate": None})
        done.append(Drawn(plot, png, data))
    return done


def trade_off_data(study: Study) -> pd.DataFrame:
    """Completed searched trials with their objectives, and vanilla and the reference on the same axes."""
    values = [name for name in table.columns(study, table.OBJECTIVES) if name != "distance"]
    trials = table.trials(study).dropna(subset=values)
    shown = trials[trials["number"].notna() | (trials["kind"] != "method")]
    return shown[["method", "ratio", "kind", *values, "front", "winner"]].reset_index(drop=True)


def draw_trade_off(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Forgetting, and below it recovery, against utility: all trials pale, each front strong, its winner ringed."""
    across = {name: text for name, text in ACROSS.items() if name in data}
    figure, axes = panels(data["ratio"], rows=len(across), height=2.5, share="row")
    for row, (name, text) in zip(axes, across.items(), strict=True):
        first = name == next(iter(across))
        for axis, (ratio, group) in zip(row, data.groupby("ratio"), strict=True):
            _trade_off(axis, group, name, methods, joined=len(across) == 1)
            axis.set(title=f"forget {ratio} %" if first else "", xlabel=text)
        row[0].set_ylabel("utility \u2191")
    marks = [mark("winner", RING, hollow=True), *(mark(kind, how) for kind, how in YARDSTICKS.items())]
    legend(figure, data.loc[data["kind"] == "method", "method"], methods, marks, lines=len(across) == 1)
    return figure


def _trade_off(axis: Axes, data: pd.DataFrame, across: str, methods: Sequence[str], *, joined: bool) -> None:
    """One panel. A front over three objectives is no line in two of them, so its points are not `joined` then."""
    for method, mine in data[data["kind"] == "method"].groupby("method"):
        how = look(str(method), methods)
        axis.plot(mine[across], mine["utility"], marker=how.marker, linestyle="", color=how.color, alpha=0.35, ms=3.2,
                  mew=0)  # fmt: skip
        front = mine[mine["front"]].sort_values([across, "utility"])
        shown = how if joined else how._replace(dashes="")
        line(axis, front[across], front["utility"], shown, drawstyle="steps-post", zorder=3)
        best = mine[mine["winner"]]
        axis.plot(best[across], best["utility"], "o", color=INK, markersize=RING.size, mfc="none", zorder=4)
    for kind, how in YARDSTICKS.items():
        bar = data[data["kind"] == kind]
        axis.plot(bar[across], bar["utility"], marker=how.marker, linestyle="", color=how.color,
                  markersize=how.size + 1.5, mec="white", mew=0.5, zorder=5, clip_on=False)  # fmt: skip


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
    """A block of panels for each ratio, a panel for each group of questions, a line for each model."""
    ratios = sorted(data["ratio"].unique())
    places = list(dict.fromkeys(zip(data["role"], data["modality"], strict=True)))
    models = [label for label in (*YARDSTICKS, *methods) if (data["method"] == label).any()]
    names = [words.wrapped(words.method(label), NAME_WIDTH) for label in models]
    lines = [name.count("\n") + 1.0 for name in names]
    height = 0.15 * sum(lines) + 0.35
    figure = Figure(figsize=(2 * COLUMN + 0.2, height * len(ratios) + 0.4), layout="constrained")
    axes = figure.subplots(len(ratios), len(places), squeeze=False, sharex=True, sharey=True)
    heights = [sum(lines[:number]) + line / 2 for number, line in enumerate(lines)]
    for row, ratio in zip(axes, ratios, strict=True):
        for axis, (role, modality) in zip(row, places, strict=True):
            chosen = (data["ratio"] == ratio) & (data["role"] == role) & (data["modality"] == modality)
            _scores(axis, data[chosen], dict(zip(models, heights, strict=True)), methods)
            axis.set_title(f"{role}\n{words.NAMES[modality]}" if ratio == ratios[0] else "")
        row[0].set(ylabel=f"forget {ratio} %", ylim=(sum(lines) + 0.2, -0.2), yticks=heights, yticklabels=names)
    bar = Line2D([], [], color=INK, linestyle=BLIND, linewidth=0.9, label="vanilla, grey pictures")
    figure.supxlabel("accuracy", fontsize=8)
    figure.legend(handles=[bar], loc="outside lower right")
    return figure


def _scores(axis: Axes, data: pd.DataFrame, heights: Mapping[str, float], methods: Sequence[str]) -> None:
    for _, mine in data.iterrows():
        how, height = look(mine["method"], methods), heights[mine["method"]]
        axis.plot([mine["low"], mine["high"]], [height, height], color=how.color, linewidth=0.9)
        axis.plot(
            mine["mean"],
            height,
            marker=how.marker,
            linestyle="",
            color=how.color,
            markersize=how.size,
            mec="white",
            mew=0.3,
        )
    for level in data["blind"].dropna().head(1):
        axis.axvline(level, color=INK, linestyle=BLIND, linewidth=0.9)
    axis.set(xlim=(-0.08, 1.08), xticks=[0, 0.5, 1], xticklabels=["0", ".5", "1"])
    axis.tick_params(axis="y", length=0)


PLOTS = (
    Plot("trade_off",
         "Forgetting against utility on the half of the questions that selects and, where robustness is an objective, "
         "what came back under the attack of the search. Every searched trial is a point; strong ones are the Pareto "
         "front of a method over all objectives, rings mark the winners. The ideal is the upper left corner.",
         trade_off_data, draw_trade_off),
    *attack_figures.PLOTS,
    *sequence_figures.PLOTS,
    *metric_check_figure.PLOTS,
    *warm_start_figure.PLOTS,
    Plot("search",
         "What the search bought: the area, with three objectives the volume, that the trials so far dominate, with "
         "forgetting 1, utility 0 and recovery 1 as the worst point. Failed, diverged and repeated proposals add "
         "nothing.", search_data, draw_search),
    Plot("scores",
         "Accuracy on multiple-choice questions of the report half, with 95 % intervals over people. The dashed bar is "
         "what vanilla reaches when all pictures are grey.", score_data, draw_scores),
)  # fmt: skip
