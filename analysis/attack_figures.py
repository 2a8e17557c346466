"""The figures of the attacks: for each, a function that gives its data and one that draws it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis import attacks, robustness, table, words, worst_case
from analysis.folder import Study
from analysis.robustness import HELD_OUT
from analysis.style import COLUMN, GREY, INK, YARDSTICKS, Plot, grid, legend, line, look, mark, panels

SEARCHED = "searched: worst"
NOTHING_TO_SEE = {"broken, not robust": "\u00d7", "broken by the attack": "\u2021", "little was forgotten": "\u25cb"}
"""Verdicts that make a gain meaningless, with their sign in the heat map."""
CELL = "#d5d5d5"
COLUMNS_WIDTH = 4.6
"""Inches that all columns of the heat map take, about."""
UPRIGHT = 6
"""Most methods whose names have room side by side."""


def curve_data(study: Study) -> pd.DataFrame:
    """Accuracy on held-out people and facts at each attack step, for methods, control and ceiling.

    Only of attacks that are scored on the way: the others are in the heat map.
    """
    curves = robustness.curves(study)
    shown = curves[curves["held_out"].isin(HELD_OUT)]
    stages = shown.groupby("attack")["step"].transform("nunique")
    return shown[stages > 2].reset_index(drop=True)


def draw_curves(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """One row for each attack and held-out group, one column for each ratio; the control is a grey band."""
    pairs = list(dict.fromkeys(zip(data["settings"], data["held_out"], strict=True)))
    groups = sorted(pairs, key=lambda pair: (pair[0], pair[1] != "person"))
    several = data["settings"].nunique() > 1
    figure, axes = panels(data["ratio"], rows=len(groups), height=2.1 if several else 1.9, share="row")
    for row, (settings, held_out) in zip(axes, groups, strict=True):
        for axis, ratio in zip(row, sorted(data["ratio"].unique()), strict=True):
            chosen = (data["settings"] == settings) & (data["held_out"] == held_out) & (data["ratio"] == ratio)
            _curves(axis, data[chosen], methods)
            what = words.wrapped(settings, 52) if several else ""
            axis.set_title("\n".join(filter(None, [f"forget {ratio} %, {words.NAMES[held_out]}", what])))
        row[0].set_ylabel("accuracy")
    for axis in axes[-1]:
        axis.set_xlabel("steps of the attacker")
    band = Line2D([], [], color=GREY, linewidth=5, alpha=0.5, label="reference (control)")
    legend(figure, data["method"], methods, [band, mark("vanilla (ceiling)", YARDSTICKS["vanilla"], line=True)])
    return figure


def _curves(axis: Axes, data: pd.DataFrame, methods: Sequence[str]) -> None:
    axis.set(ylim=(-0.04, 1.04))
    for method, mine in data.groupby("method"):
        mine = mine.sort_values("step")
        if method == "reference":
            _band(axis, mine)
        else:
            line(axis, mine["step"], mine["mean"], look(str(method), methods))


def _band(axis: Axes, mine: pd.DataFrame) -> None:
    axis.fill_between(mine["step"], mine["low"], mine["high"], color=GREY, alpha=0.3, linewidth=0)
    axis.plot(mine["step"], mine["mean"], color=GREY, linewidth=1.6)


def draw_budget(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """The worst so far against the trials that the attacker had: a step where an attack brought more back."""
    figure, axes = panels(data["ratio"], rows=1, height=2.3)
    for axis, (ratio, group) in zip(axes[0], data.groupby("ratio"), strict=True):
        for method, mine in group.groupby("method"):
            every = max(1, len(mine) // 8)
            line(axis, mine["trial"], mine["best"], look(str(method), methods), drawstyle="steps-post", markevery=every)
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set(title=f"forget {ratio} %", xlabel="trials of the attacker's search")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set_ylabel("recovery above control\n(probability, select half)")
    legend(figure, data["method"], methods, [])
    return figure


def draw_worst(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A small panel for each winner: its worst attack step by step, with the control's interval as a band."""
    order = {method: place for place, method in enumerate(methods)}
    cases = sorted(set(zip(data["ratio"], data["method"], strict=True)), key=lambda c: (c[0], order[c[1]]))
    figure, axes = grid(len(cases), 1.55, "attacker's steps", "accuracy")
    for axis, (ratio, method) in zip(axes, cases, strict=True):
        mine = data[(data["ratio"] == ratio) & (data["method"] == method)].sort_values("step")
        _band(axis, mine[mine["who"] == "control"])
        own = mine[mine["who"] == "method"]
        how = look(method, methods)
        axis.fill_between(own["step"], own["low"], own["high"], color=how.color, alpha=0.15, linewidth=0)
        line(axis, own["step"], own["mean"], how)
        what = words.wrapped(own["settings"].iloc[0].partition(",")[0], 26)
        axis.set_title(words.wrapped(f"{words.method(method)}, {ratio} %", 26) + f"\n{what}", fontsize=7)
        axis.set(ylim=(-0.04, 1.04))
        axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    band = Line2D([], [], color=GREY, linewidth=5, alpha=0.5, label="reference under the same attack (control)")
    own_line = Line2D([], [], color=INK, marker="o", markersize=3, label="winner, in its colour")
    legend(figure, pd.Series(dtype=str), methods, [own_line, band])
    return figure


def heat_data(study: Study) -> pd.DataFrame:
    """The gain above control of each winner under each attack of the suite, and under the worst of its search."""
    fixed = robustness.pooled(study)
    fixed = fixed[~fixed["method"].isin(YARDSTICKS)]
    lines = []
    trials = worst_case.trials(study)
    for (method, ratio, key), found in trials[trials["trial"].notna()].groupby(["method", "ratio", "key"], sort=False):
        keeping = worst_case.chosen(found, attacks.keeps(study)) or worst_case.chosen(found, -np.inf)
        if keeping and key in study.trials:
            told = worst_case.judged(study, study.trials[str(key)], keeping)
            lines.append({**told, "method": method, "ratio": ratio, "settings": SEARCHED})
    columns = ["method", "ratio", "settings", "above_control", "verdict"]
    parts = [part[columns] for part in (fixed, pd.DataFrame(lines, columns=columns)) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def draw_heat(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """One panel a ratio, below one another; columns are methods, rows attacks. A grey cell says nothing."""
    ratios = sorted(data["ratio"].unique())
    there = [method for method in methods if (data["method"] == method).any()]
    rows = [name for name in dict.fromkeys(data["settings"]) if name != SEARCHED]
    rows += [SEARCHED] if (data["settings"] == SEARCHED).any() else []
    labels = [words.wrapped(name, 40) for name in rows]
    height = sum(0.17 + 0.11 * label.count("\n") for label in labels)
    most = max(1, int(COLUMNS_WIDTH / len(there) * 72 / 8.5))
    names = [words.in_lines(words.method(method), most) for method in there]
    taken = 0.07 * max(len(text) for name in names for text in name.split("\n")) + 0.3
    figure = Figure(figsize=(2 * COLUMN + 0.2, (height + 0.35) * len(ratios) + taken), layout="constrained")
    axes = figure.subplots(len(ratios), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    top = max(0.5, float(data["above_control"].max()))
    edges = np.concatenate([[0.0], np.cumsum([1 + 0.65 * label.count("\n") for label in labels])])
    for axis, ratio in zip(axes, ratios, strict=True):
        mine = data[data["ratio"] == ratio].set_index(["settings", "method"])
        for y, row in enumerate(rows):
            for x, method in enumerate(there):
                if (row, method) in mine.index:
                    _cell(axis, x, (edges[y] + edges[y + 1]) / 2, edges[y + 1] - edges[y], mine.loc[(row, method)], top)
        axis.set(title=f"forget {ratio} %", xlim=(-0.5, len(there) - 0.5), ylim=(edges[-1], 0))
        axis.set_yticks((edges[1:] + edges[:-1]) / 2, labels)
        axis.tick_params(length=0)
        axis.grid(visible=False)
        if rows[-1] == SEARCHED:
            axis.axhline(edges[-2], color=INK, linewidth=0.8)
    axes[-1].set_xticks(range(len(there)), names, rotation=90 if len(there) > UPRIGHT else 0)
    signs = [Patch(color=CELL, label=f"{sign} {what}") for what, sign in NOTHING_TO_SEE.items()]
    figure.legend(handles=signs, loc="outside lower center", ncols=3)
    return figure


def _cell(axis: Axes, x: int, y: float, height: float, found: pd.Series, top: float) -> None:
    sign, value = NOTHING_TO_SEE.get(found["verdict"], ""), float(found["above_control"])
    share = 0.0 if np.isnan(value) else min(1.0, max(0.0, value / top))
    heat = tuple(1 - share * (1 - part) for part in (0.70, 0.09, 0.11))  # white to a dark red
    axis.barh(y, 1, height, left=x - 0.5, color=CELL if sign else heat, edgecolor="white", linewidth=0.8)
    text = sign or ("?" if np.isnan(value) else f"{value:.2f}")
    axis.text(x, y, text, ha="center", va="center", fontsize=6.5, color="white" if share > 0.6 and not sign else INK)


def against_utility_data(study: Study) -> pd.DataFrame:
    """Utility of each winner and the gain above control of its worst attack, with its verdict."""
    worst = worst_case.table(study)
    won = table.winners(study)[["method", "ratio", "utility"]]
    shown = worst[["method", "ratio", "above_control", "above_control_low", "above_control_high", "verdict"]]
    return shown.merge(won, on=["method", "ratio"]).dropna(subset=["above_control", "utility"])


def draw_against_utility(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """One point a method, with its interval; the ideal is at 0 on the right. A cross marks what says nothing."""
    figure, axes = panels(data["ratio"], rows=1, height=2.5)
    for axis, (ratio, group) in zip(axes[0], data.groupby("ratio"), strict=True):
        axis.axhline(0, color=GREY, linewidth=0.8)
        for _, mine in group.iterrows():
            how = look(mine["method"], methods)
            ends = [mine["above_control_low"], mine["above_control_high"]]
            axis.plot([mine["utility"]] * 2, ends, color=how.color, linewidth=0.9)
            axis.plot(mine["utility"], mine["above_control"], marker=how.marker, linestyle="", color=how.color,
                      markersize=how.size + 1, mec="white", mew=0.4, zorder=3)  # fmt: skip
            if mine["verdict"] in NOTHING_TO_SEE:
                axis.plot(mine["utility"], mine["above_control"], "x", color=INK, markersize=8, mew=1.1, zorder=4)
        axis.set(title=f"forget {ratio} %", xlabel="utility of the winner \u2191", xlim=(-0.04, 1.04))
    axes[0][0].set_ylabel("worst case: recovery\nabove control \u2193")
    cross = Line2D(
        [], [], color=INK, marker="x", linestyle="", markersize=7, mew=1.1, label="broken, or little forgotten"
    )
    legend(figure, data["method"], methods, [cross], lines=False)
    return figure


PLOTS = (
    Plot("relearning",
         "Accuracy on what the attacker was not given, step by step. Only what rises above the control (the "
         "reference under the same attack, with its 95 % interval) was hidden and not forgotten.",
         curve_data, draw_curves),
    Plot("attack_heatmap",
         "What each attack got back of each winner: the gain in accuracy above control on held-out people and facts, "
         "report half. Grey cells say nothing of robustness; ? has no control. The last line is the worst attack that "
         "the attacker's own search found, chosen on the other half.", heat_data, draw_heat),
    Plot("attack_budget",
         "The most that came back above control after each trial of the attacker's search, on the half of the "
         "questions that selects. Attacks that failed or broke the model cost a trial and add nothing; what the search "
         "ends with is told on the other half in the table.", worst_case.budget, draw_budget),
    Plot("worst_attack",
         "The worst attack on each winner step by step: accuracy on all that was held out, with 95 % intervals over "
         "people. Only what rises above the control was hidden and not forgotten.", worst_case.curves, draw_worst),
    Plot("robustness",
         "Robustness against utility: what the worst attack that leaves a model gets back above control (report half, "
         "95 % interval) against the utility of the winner. The ideal is at 0 on the right; a cross marks points that "
         "say nothing of robustness.", against_utility_data, draw_against_utility),
)  # fmt: skip
