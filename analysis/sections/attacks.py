"""Robustness to the attacks of the fixed suite, which are run on every winner, vanilla and the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis import naming
from analysis.plots import Plot
from analysis.sections import Part, Section, _halfway, _recovery, _worst_attack
from analysis.sections._recovery import NOTHING_TO_SEE
from analysis.study_folder import StudyResults
from analysis.style import GREY, INK, TEXT, YARDSTICKS, band, grid, legend, line, look, mark
from analysis.tables import NOTHING, Table, number, two, with_interval

WORST = "worst attack of suite and search"
ABREAST = 104
"""Characters of titles that fit beside each other."""
CELL = "#d5d5d5"
COLUMNS_WIDTH = 4.6
"""Inches that all columns of the heat map take, about."""
UPRIGHT = 6
"""Most methods whose names have room side by side."""


def parts(study: StudyResults) -> Iterator[Part]:
    """Every attack on every winner at a glance, the stepwise ones step by step, and all numbers."""
    yield Plot(
        "attack_heatmap",
        "Robustness to each attack: the gain above control, in probability of the right option (of sampled "
        "extraction in leak@k), on held-out people and facts. Grey cells say nothing about robustness; ? has no "
        "control. The last line, where attacks were searched for as well, is the worst attack of all, that of the "
        "table of worst attacks.",
        heat_data(study),
        draw_heat,
    )
    yield Plot(
        "relearning",
        "Accuracy on held-out people and facts, which the attacker was not given, step by step. Only a rise above the "
        "control (the reference under the same attack, with its 95 % interval) shows that knowledge was hidden and "
        "not forgotten.",
        curve_data(study),
        draw_curves,
    )
    yield recovery_table(_recovery.recovery(study))


def recovery_table(raw: pd.DataFrame) -> Table:
    """Recovery under the suite, on what the attacker was not given."""
    mine = raw[raw["held_out"] != "seen"]
    shown = pd.DataFrame({
        "forget %": mine["ratio"], "method": mine["method"].map(naming.method), "attack": mine["settings"],
        "on": mine["held_out"].replace(naming.NAMES), "verdict": mine["verdict"],
        "above control": with_interval(mine, "above_control"), "gain": with_interval(mine, "gain"),
        "AG": with_interval(mine, "attack_gain"), "before": with_interval(mine, "before"),
        "after": with_interval(mine, "after"), "control after": mine["control_after"].map(two),
        **_halfway.steps_columns(mine),
        "normalized recovery": with_interval(mine, "recovery"), "retain kept": mine["kept"].map(two),
        "people": mine["people"], "seeds": mine["seeds"],
    })  # fmt: skip
    return Table(
        "recovery", "Recovery under the fixed suite",
        "Before, after and the control's level are accuracies on questions about the forget set; gains are in "
        "probability of the right option, all with 95 % intervals over people and seeds. Of sampled extraction all are "
        "leak@k, and before is whether the greedy reply states the fact. Normalized recovery is "
        f"{NOTHING} where less than {_recovery.SMALLEST_GAP} was forgotten. AG (attack gain): accuracy after minus "
        "before; papers give no formula, so this definition is ours. All numbers are of the test half at the step "
        "where the attacker stops: that of the largest gain above control on the validation half. "
        f"{_halfway.NOTE} Retain kept: retain accuracy after the attack as a fraction of that before. Probes and "
        "membership inference ask after the attack in their own way, "
        "so only the difference to the control counts there. What the attacker was given shows that the attack works; "
        f"it is in the CSV too. {_recovery.in_precision(raw)}", raw, shown,
    )  # fmt: skip


def printed(study: StudyResults) -> pd.DataFrame:
    """The worst attack on each winner, for the terminal: that of the table and of the conclusion."""
    lines = _worst_attack.table(study)
    return pd.DataFrame(
        {
            "forget %": lines["ratio"],
            "method": lines["method"].map(naming.method),
            "worst attack": lines["settings"].str.split(",").str[0],
            "before": lines["before"].map(number),
            "after": lines["after"].map(number),
            "control after": lines["control_after"].map(number),
            "above control": with_interval(lines, "above_control"),
            "verdict": lines["verdict"],
        }
    ).astype(str)


def curve_data(study: StudyResults) -> pd.DataFrame:
    """Accuracy on held-out people and facts at each attack step, for methods, control and ceiling.

    Only for attacks that go on from step to step: the others are in the heat map and in tables of their own.
    """
    return _recovery.curves(study)


def draw_curves(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A panel for each attack, held-out group and ratio: a row has all ratios, or two panels of the only one.

    The control is a grey band.
    """
    ratios = sorted(data["ratio"].unique())
    shown = [(*group, ratio) for group in curve_groups(data) for ratio in ratios]
    columns = max(2, len(ratios))
    figure, axes = grid(len(shown), 2.1, "attack steps", "accuracy", columns)
    for axis, (settings, held_out, ratio) in zip(axes, shown, strict=True):
        chosen = (data["settings"] == settings) & (data["held_out"] == held_out) & (data["ratio"] == ratio)
        _curves(axis, data[chosen], methods)
        what = naming.wrapped(settings, ABREAST // columns)
        axis.set_title(f"forget {ratio} %, {naming.NAMES[held_out]}\n{what}")
    control = Line2D([], [], color=GREY, linewidth=5, alpha=0.5, label="reference (control)")
    legend(figure, data["method"], methods, [control, mark("vanilla (ceiling)", YARDSTICKS["vanilla"], line=True)])
    return figure


def curve_groups(data: pd.DataFrame) -> list[tuple[str, str]]:
    """Each attack with each kind of what was held out, in the order in which they are drawn."""
    pairs = dict.fromkeys(zip(data["settings"], data["held_out"], strict=True))
    return sorted(pairs, key=lambda pair: (pair[0], pair[1] != "person"))


def _curves(axis: Axes, data: pd.DataFrame, methods: Sequence[str]) -> None:
    axis.set(ylim=(-0.04, 1.04))
    for method, mine in data.groupby("method"):
        mine = mine.sort_values("step")
        if method == "reference":
            band(axis, mine)
        else:
            line(axis, mine["step"], mine["mean"], look(str(method), methods))


def heat_data(study: StudyResults) -> pd.DataFrame:
    """The gain above control of each winner under each attack of the suite and, if some were searched, the worst."""
    fixed = _recovery.pooled_groups(study)
    fixed = fixed[~fixed["method"].isin(YARDSTICKS)]
    worst = _worst_attack.table(study)
    worst = worst[(worst["proposals"] > 0) & (worst["attack"] != "")].assign(settings=WORST)
    columns = ["method", "ratio", "settings", "above_control", "verdict"]
    parts = [part[columns] for part in (fixed, worst) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def draw_heat(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """One panel for each ratio, stacked; columns are methods, rows attacks. A grey cell says nothing."""
    ratios = sorted(data["ratio"].unique())
    there = [method for method in methods if (data["method"] == method).any()]
    rows = [name for name in dict.fromkeys(data["settings"]) if name != WORST]
    rows += [WORST] if (data["settings"] == WORST).any() else []
    labels = [naming.wrapped(name, 40) for name in rows]
    height = sum(0.17 + 0.11 * label.count("\n") for label in labels)
    most = max(1, int(COLUMNS_WIDTH / len(there) * 72 / 8.5))
    names = [naming.in_lines(naming.method(method), most) for method in there]
    taken = 0.07 * max(len(text) for name in names for text in name.split("\n")) + 0.3
    figure = Figure(figsize=(TEXT, (height + 0.35) * len(ratios) + taken), layout="constrained")
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
        if rows[-1] == WORST:
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
    text = sign or ("?" if np.isnan(value) else f"{value:z.2f}")
    axis.text(x, y, text, ha="center", va="center", fontsize=6.5, color="white" if share > 0.6 and not sign else INK)


SECTION = Section("Robustness to attacks", 20, parts)
