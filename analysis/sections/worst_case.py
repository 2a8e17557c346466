"""The worst attack on each winner, of the fixed suite and of the attack search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import naming
from analysis.plots import Plot
from analysis.sections import Part, Section, _halfway, _recovery, _worst_attack
from analysis.sections._recovery import NOTHING_TO_SEE
from analysis.study_folder import StudyResults
from analysis.style import GREY, INK, band, grid, legend, line, look, panels
from analysis.tables import Table, two, whole, with_interval
from analysis.trials import winners


def parts(study: StudyResults) -> Iterator[Part]:
    """How robust the winners are, the worst attack on each, and what the attacker spent."""
    yield Plot(
        "robustness",
        "Robustness against utility: recovery above control under the worst attack (test half, 95 % "
        "interval) against the utility of the winner. The ideal is 0 on the right; a cross marks points "
        "that say nothing about robustness.",
        against_utility_data(study),
        draw_against_utility,
    )
    yield worst_case_table(study)
    yield attack_counts_table(study)
    yield Plot(
        "worst_attack",
        "The worst attack on each winner step by step: accuracy on all that was held out, with 95 % intervals over "
        "people and seeds. Only a rise above the control shows that knowledge was hidden and not forgotten. "
        "Dotted: the step where the attacker stops, at which the attack is told. Of stages that do not go on from one "
        "another, such as changes of the input, only that one is drawn, by its number; where replies are sampled it is "
        "the number of replies, and the level is leak@k.",
        _worst_attack.curves(study),
        draw_worst,
    )
    yield Plot(
        "attack_budget",
        "The largest recovery above control after each trial of the attack search, on the validation half. Attacks "
        "that failed cost a trial and add nothing; the table reports the result of "
        "the search on the test half.",
        _worst_attack.budget(study),
        draw_budget,
    )
    yield attack_trials_table(study)


def worst_case_table(study: StudyResults) -> Table:
    """The worst attack on each winner, and what the attacker spent to find it."""
    raw = _worst_attack.table(study)
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method), "verdict": raw["verdict"],
        "above control": with_interval(raw, "above_control"), "before": raw["before"].map(two),
        "after": raw["after"].map(two), "control after": raw["control_after"].map(two), **_halfway.steps_columns(raw),
        "vanilla after": raw["vanilla_after"].map(two), "retain kept": raw["kept"].map(two),
        "kept by control": raw["control_kept"].map(two), "worst attack": raw["settings"].replace("", "none"),
        "of attacks": raw["tried"].map(whole),
        "mean of the worst 3": raw["worst_3"].map(two), "Gradient ascent": raw["weak_above_control"].map(two),
    })  # fmt: skip
    return Table(
        "worst_case", "Recovery under the worst attack",
        "Of all attacks on a winner, of the suite and of the attack search, the one of which most surely came back: "
        "with the largest lower bound of recovery above control, whatever it leaves of the model. Attack and step, the "
        "one where the attacker stops, are selected by probability on the validation half and reported on the test "
        "half, whose questions ask for other facts, on held-out people and facts together; in probability, with a 95 % "
        "interval over people and seeds. "
        f"{_worst_attack.ALLOWED} {_halfway.NOTE} Before, after and the levels of control and vanilla are accuracies, "
        "of sampled extraction leak@k. "
        "Retain kept: what is left of the retain accuracy. Gradient ascent: recovery under the same attack of that "
        f"method's winner, whose unlearning is known to be superficial. {_recovery.in_precision(raw)}", raw, shown,
    )  # fmt: skip


def attack_counts_table(study: StudyResults) -> Table:
    """The outcomes of the attacks on each winner."""
    columns = ["ratio", "method", "proposals", "suite", *_worst_attack.COUNTS]
    raw = _worst_attack.table(study)[columns].sort_values(["ratio", "method"])
    names = {"ratio": "forget %", "proposals": "attack search trials", "suite": "suite", "cut_short": "cut short",
             "duplicates": "duplicate", "broke": "model collapsed"}  # fmt: skip
    return Table(
        "attack_counts", "Attacks by outcome",
        "Complete, duplicate, failed and unfinished attacks add up to the trials of the attack search and the attacks "
        "of the suite. Among the complete ones, some were cut short by a divergence, and under some the model "
        "collapsed: they left too little of the retain accuracy.",
        raw, raw.assign(method=raw["method"].map(naming.method)).rename(columns=names),
    )  # fmt: skip


def attack_trials_table(study: StudyResults) -> Table:
    """The attacks that failed or ended early, with the reason; the CSV has all attacks."""
    raw = _worst_attack.trials(study)
    mine = raw[(raw["reason"] != "") | (raw["state"] != "complete")]
    shown = pd.DataFrame({
        "forget %": mine["ratio"], "method": mine["method"].map(naming.method), "attack": mine["settings"],
        "state": mine["state"], "reason": mine["reason"], "key": mine["attack"],
    })  # fmt: skip
    return Table("attack_trials", "Attacks without a complete result",
                 "Failed, unfinished, or cut short by a divergence; the steps before it count. The CSV has every "
                 "attack on every winner.", raw, shown)  # fmt: skip


def draw_budget(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """The worst so far against the trials of the attack search: a step where an attack recovered more."""
    figure, axes = panels(data["ratio"], rows=1, height=2.3)
    for axis, (ratio, group) in zip(axes[0], data.groupby("ratio"), strict=True):
        for method, mine in group.groupby("method"):
            every = max(1, len(mine) // 8)
            line(axis, mine["trial"], mine["best"], look(str(method), methods), drawstyle="steps-post", markevery=every)
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set(title=f"forget {ratio} %", xlabel="trials of the attack search")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set_ylabel("recovery above control\n(probability, validation half)")
    legend(figure, data["method"], methods, [])
    return figure


def draw_worst(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A small panel for each winner: its worst attack step by step, with the control's interval as a band."""
    order = {method: place for place, method in enumerate(methods)}
    cases = sorted(set(zip(data["ratio"], data["method"], strict=True)), key=lambda c: (c[0], order[c[1]]))
    figure, axes = grid(len(cases), 1.55, "attack steps", "accuracy")
    for axis, (ratio, method) in zip(axes, cases, strict=True):
        mine = data[(data["ratio"] == ratio) & (data["method"] == method)].sort_values("step")
        band(axis, mine[mine["who"] == "control"])
        own = mine[mine["who"] == "method"]
        how = look(method, methods)
        for step in own.loc[own["told"], "step"]:
            axis.axvline(step, color=INK, linewidth=0.7, linestyle=":")
        axis.fill_between(own["step"], own["low"], own["high"], color=how.color, alpha=0.15, linewidth=0)
        line(axis, own["step"], own["mean"], how)
        what = naming.wrapped(own["settings"].iloc[0].partition(",")[0], 26)
        axis.set_title(naming.wrapped(f"{naming.method(method)}, {ratio} %", 26) + f"\n{what}", fontsize=7)
        axis.set(ylim=(-0.04, 1.04))
        axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    control = Line2D([], [], color=GREY, linewidth=5, alpha=0.5, label="reference under the same attack (control)")
    own_line = Line2D([], [], color=INK, marker="o", markersize=3, label="winner, in its colour")
    legend(figure, pd.Series(dtype=str), methods, [own_line, control])
    return figure


def against_utility_data(study: StudyResults) -> pd.DataFrame:
    """Utility of each winner and the gain above control of its worst attack, with its verdict."""
    worst = _worst_attack.table(study)
    won = winners(study)[["method", "ratio", "utility"]]
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
        [], [], color=INK, marker="x", linestyle="", markersize=7, mew=1.1, label="collapsed or not unlearned"
    )
    legend(figure, data["method"], methods, [cross], lines=False)
    return figure


SECTION = Section("Worst-case attack", 30, parts)
