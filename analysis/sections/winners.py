"""The winner of every method on the test half, and where it lies among all trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import comparison, live, naming
from analysis.plots import Plot
from analysis.searched import spelled_method
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.style import INK, YARDSTICKS, Look, legend, line, look, mark, panels
from analysis.tables import NOTHING, Table, interval, number, parameters
from analysis.trials import OBJECTIVES, columns, objectives_of, quality, search_attack, trials, winners
from study.core.terms import BASE_MODEL
from study.metrics.objectives import BROKEN

ACROSS = {"forget_gap": "forget gap \u2193", "recovery": "recovery under the search attack \u2193"}
"""What is shown against the utility, where it is an objective."""
RING = Look(INK, "o", "", 8)


def parts(study: StudyResults) -> Iterator[Part]:
    """The winners, and the hyper-parameters that won."""
    won = winners(study)
    yield winners_table(study, won)
    yield hyperparameters_table(study, won)


def trade_off(study: StudyResults) -> Plot:
    """The figure of all trials, which stands in the box on top."""
    return Plot(
        "trade_off",
        "Forget gap against utility on the validation half and, where robustness is an objective, recovery under the "
        "search attack. Every trial of the search is a point; strong points are the Pareto front of a method over all "
        "objectives, rings mark the winners. The ideal point is the upper left corner.",
        trade_off_data(study),
        draw_trade_off,
        live.trade_off,
    )


def winners_table(study: StudyResults, raw: pd.DataFrame) -> Table:
    """The winners on the test half, with both baselines: vanilla and the references."""
    lines = []
    for ratio in study.ratios:
        lines += [_baseline(study, kind, ratio) for kind in ("vanilla", "reference")]
        lines += [_winner(line) for _, line in raw[raw["ratio"] == ratio].iterrows()]
    return Table(
        "winners", "Winners on the test half",
        "Mean over seeds. The gap of the reference is the noise floor: the largest gap of one reference to the "
        "others; a model within it cannot be told from retraining. Distance: to the ideal point (forget gap 0, utility "
        "1). Farther: how much farther the model is than the nearest, paired by person, with its 95 % interval; tied "
        "models cannot be told from the nearest. Most known: of whom the model still knows most, the mean over all "
        "questions about that person. Mean gap: the objective of earlier versions, blind to single people. Validation "
        "distance: the one by which the trial was selected. Retain kept: retain accuracy as a fraction of vanilla's. "
        f"Collapsed: this fraction or the utility is below {BROKEN}.{_third(study)}{_reference(study)}", raw,
        pd.DataFrame([line for line in lines if line]).fillna(""),
    )  # fmt: skip


def printed(study: StudyResults) -> pd.DataFrame:
    """The winners as a terminal shows them."""
    shown = winners_table(study, winners(study)).shown
    return shown.drop(columns=["mean gap", "validation distance", "retain kept", "key"], errors="ignore").astype(str)


def hyperparameters_table(study: StudyResults, won: pd.DataFrame) -> Table:
    """The hyper-parameters of the winners, also as text that the command line takes."""
    pairs = zip(won["method"], won["key"], strict=True)
    raw = won[["ratio", "method", "parameters"]].assign(
        text=pd.Series([spelled_method(study, method, key) for method, key in pairs], dtype=str), key=won["key"]
    )
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method),
        "parameters": raw["parameters"].map(parameters), "for --methods": raw["text"], "key": raw["key"],
    })  # fmt: skip
    return Table(
        "hyperparameters", "Hyper-parameters of the winners",
        "For --methods: what was searched, as the command line takes it; it is not searched again then. "
        "--methods-from with the folder of this study starts the search of another one at its winners. The key names "
        "the trial's folder.", raw, shown,
    )  # fmt: skip


def pasted(study: StudyResults) -> list[str]:
    """The winners of each ratio as the command line takes them, for a terminal."""
    raw = hyperparameters_table(study, winners(study)).raw
    return [f"{ratio} %  {text}" for ratio, text in zip(raw["ratio"], raw["text"], strict=True)]


def _reference(study: StudyResults) -> str:
    """What to say of the reference, where it is the base model."""
    return " No reference was given: the gap is that to the base model." * study.by_base_model


def _third(study: StudyResults) -> str:
    """What to say of the third objective, where there is one."""
    if not search_attack(study):
        return ""
    return (
        " Recovery: what the search attack brings back above control, in probability of the right option; 0 if that "
        "is no more than the reference learns, 1 for a model that collapsed before or under the attack."
    )


def _winner(line: pd.Series) -> dict[str, Any]:
    return {
        "forget %": line["ratio"], "method": naming.method(line["method"]),
        "forget gap": interval(line["forget_gap"], line["forget_gap_low"], line["forget_gap_high"]),
        "utility": number(line["utility"]), **({"recovery": number(line["recovery"])} if "recovery" in line else {}),
        "distance": number(line["distance"]),
        "farther": interval(line["farther"], line["farther_low"], line["farther_high"]),
        "most known": _known(line["known_person"], line["known"]), "mean gap": number(line["mean_gap"]),
        "validation distance": number(line["select_distance"]), "retain kept": number(line["retained"]),
        "seeds": f"{line['seeds']} of {line['seeds_planned']}", "mark": mark_of(line),
        "key": line["key"],
    }  # fmt: skip


def mark_of(line: pd.Series) -> str:
    """What a winner is beside the others and the references, in a word or two."""
    if line["broken"]:
        return "collapsed"
    within = ["like retraining"] * bool(line["forget_gap"] <= line["noise_floor"])
    return ", ".join(["tied"] * bool(line["tied"]) + within)


def _known(person: str, known: float) -> str:
    """Of whom a model knows most, and how much."""
    return NOTHING if math.isnan(known) else f"{person} {known:.2f}"


def _baseline(study: StudyResults, kind: str, ratio: int) -> dict[str, Any]:
    """The line of vanilla or of the references among the winners; empty where there is none."""
    found = study.yardsticks("vanilla" if kind == "vanilla" else "reference", ratio)
    if not found:
        return {}
    values, _ = objectives_of(study, found[0].key, "report")
    chosen, _ = objectives_of(study, found[0].key, "select")
    floor = comparison.floor(study, ratio)
    person, known = comparison.most_known(study, [t.key for t in found], ratio)
    shown = number(values["forget_gap"]) if kind == "vanilla" else f"{max(floor):.3f}" if floor else "not known"
    name = BASE_MODEL if kind == "reference" and study.by_base_model else kind
    return {
        "forget %": ratio, "method": name, "forget gap": shown, "utility": number(values["utility"]),
        **({"recovery": number(values["recovery"])} if "recovery" in values else {}),
        "distance": number(values["distance"]), "farther": "", "most known": _known(person, known),
        "mean gap": "", "validation distance": number(chosen["distance"]),
        "retain kept": number(float(quality(study, found[:1])["retained"])), "seeds": f"{len(found)}",
        "mark": "baseline" if kind == "vanilla" else "noise floor", "key": found[0].key,
    }  # fmt: skip


def trade_off_data(study: StudyResults) -> pd.DataFrame:
    """The complete trials of the search with their objectives, and vanilla and the reference on the same axes."""
    values = [name for name in columns(study, OBJECTIVES) if name != "distance"]
    found = trials(study).dropna(subset=values)
    shown = found[found["number"].notna() | (found["kind"] != "method")]
    return shown[["method", "ratio", "key", "kind", *values, "front", "winner"]].reset_index(drop=True)


def draw_trade_off(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Forget gap, and below it recovery, against utility: all trials pale, each front strong, its winner ringed."""
    across = {name: text for name, text in ACROSS.items() if name in data}
    figure, axes = panels(data["ratio"], rows=len(across), height=2.5)
    for row, (name, text) in zip(axes, across.items(), strict=True):
        first = name == next(iter(across))
        for axis, (ratio, group) in zip(row, data.groupby("ratio"), strict=True):
            _trade_off(axis, group, name, methods, joined=len(across) == 1)
            axis.set(title=f"forget {ratio} %" if first else "", xlabel=text)
            axis.xaxis.set_major_locator(MaxNLocator(4))  # small gaps have long numbers
        row[0].set_ylabel("utility \u2191")
    marks = [mark("winner", RING, hollow=True), *(mark(kind, how) for kind, how in YARDSTICKS.items())]
    legend(figure, data.loc[data["kind"] == "method", "method"], methods, marks, lines=len(across) == 1)
    return figure


def _trade_off(axis: Axes, data: pd.DataFrame, across: str, methods: Sequence[str], *, joined: bool) -> None:
    """One panel. In two of three objectives a front is no line, so its points are `joined` only where there are two."""
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


SECTION = Section("Winners", 10, parts)
