"""Sequential unlearning: what is known of each group of people after every request, and what came back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import intervals, naming
from analysis.plots import Plot
from analysis.sections import Part, Section
from analysis.sections._recovery import SMALLEST_GAP
from analysis.study_folder import InTurn, StudyResults
from analysis.style import DASHES, GREY, INK, MARKERS, Look, grid, legend, line, mark
from analysis.tables import NOTHING, Table, with_interval
from study.core.records import TrialRecord
from study.core.terms import Goal
from study.metrics.intervals import MISSING, Interval, Values
from study.metrics.objectives import BROKEN

COLUMNS = ["method", "ratio", "requests", "state", "done", "group", "modality", "mean", "low", "high", "people",
           "diverged"]  # fmt: skip
OTHERS = ("retain", "real", "spared")
RETAIN = Look(INK, "s", ":", 3.5)
AT_ONCE = 0.7
"""How far right of the last request the same people in a single request are drawn, in requests."""


def parts(study: StudyResults) -> Iterator[Part]:
    """What later requests brought back, in words, as a figure and as a table."""
    yield from said(study)
    yield Plot(
        "sequence",
        "Sequential unlearning: accuracy on the pictures of the people of each request, and of the retained people, "
        "after each request. The grey band is the level of the reference, which never saw the forget people; hollow "
        "marks are the same winner with all people in a single request. A line that rises again is knowledge that a "
        "later request brought back.",
        longest(study),
        draw,
    )
    yield sequence_table(study)


@lru_cache(maxsize=4)
def table(study: StudyResults) -> pd.DataFrame:
    """Accuracy of each group after each number of requests, one line for each winner, group and state.

    `state` is `in turn` with `done` requests (0: vanilla), `at once` for the same winner with all people in a single
    request, and `reference` for the model that never saw them. Groups: the forget people of `request 1`, `request 2`,
    ..., and those who must stay known. Test half, multiple-choice questions, intervals over people.
    """
    lines = []
    for found in winners(study):
        place = {"method": found.method, "ratio": found.trial.ratio, "requests": found.turns.requests,
                 "diverged": found.turns.record.diverged}  # fmt: skip
        whole = study.rows(found.trial.key, "report")
        bars = [study.rows(t.key, "report") for t in study.yardsticks("reference", found.trial.ratio)[:1]]
        stages = [("in turn", int(str(step)), rows) for step, rows in found.turns.rows.groupby("step")]
        others = [("at once", found.turns.requests, whole), *(("reference", 0, rows) for rows in bars)]
        for state, done, rows in [*stages, *((s, d, r) for s, d, r in others if r is not None)]:
            for group, modality, mine in _groups(rows, found.turns, study.goal):
                value = intervals.mean(mine).interval()._asdict()
                where = {"state": state, "done": done, "group": group, "modality": modality}
                lines.append({**place, **where, **value, "people": mine["person"].nunique()})
    return pd.DataFrame(lines, columns=COLUMNS)


class Winner(NamedTuple):
    """A winner with sequential requests."""

    method: str
    trial: TrialRecord
    turns: InTurn


def winners(study: StudyResults) -> list[Winner]:
    """Every sequence on disk of the winners, by ratio and method."""
    return [
        Winner(method, trial, turns)
        for ratio in study.ratios
        for method, members in study.labelled(ratio)
        for trial in members
        for turns in study.sequences(trial.key)
    ]


def said(study: StudyResults) -> list[str]:
    """What later requests brought back, in plain words for each ratio; nothing without sequences."""
    kinds = {
        "back": "part of what request 1 removed is back after the last request: {}.",
        "stayed": "what request 1 removed is still forgotten after the last request: {}.",
        "little": f"request 1 removed less than {SMALLEST_GAP} accuracy, too little to say how much came back: {{}}.",
        "destroyed": f"the model collapsed (less than {BROKEN} of the retain accuracy is left), so what came back is "
        "not reported: {}.",
        "ended": "the sequence stopped early: {}.",
    }  # fmt: skip
    found: dict[tuple[int, str], list[str]] = {}
    for one in winners(study):
        for kind, text in _told(one, study.goal):
            found.setdefault((one.trial.ratio, kind), []).append(text)
    return [
        f"At forget ratio {ratio} %, {kinds[kind].format(naming.listed(found[ratio, kind]))}"
        for ratio in study.ratios
        for kind in kinds
        if (ratio, kind) in found
    ]


def first(found: Winner, goal: Goal) -> tuple[float, Interval]:
    """The accuracy that request 1 took from its people, and the part of it that is back after the last request.

    Both over the modalities that were to be forgotten; the part is not a number where too little was removed.
    """
    rows = found.turns.rows
    stages = {"before": 0, "after": 1, "last": int(rows["step"].max())}
    mine = rows[rows["person"].isin(found.turns.record.people[0]) & _asked(rows, goal) & (rows["role"] == "forget")]
    people = pd.DataFrame({name: intervals.by_person(mine[mine["step"] == step]) for name, step in stages.items()})
    removed = float((people["before"] - people["after"]).mean())
    if not removed >= SMALLEST_GAP:
        return removed, MISSING
    return removed, intervals.interval(people[["before", "after", "last"]].dropna(), _back)


def sequence_table(study: StudyResults) -> Table:
    """Sequential unlearning: a line for each winner and state, a column for each group of people."""
    raw = table(study)
    lines = []
    keys = ["ratio", "method", "requests", "state", "done"]
    for (ratio, method, requests, state, done), group in raw.groupby(keys, sort=False):
        when = {"in turn": f"after {done} of {requests}", "at once": "all in one"}.get(str(state), str(state))
        ended = group["diverged"].iloc[0] if state == "in turn" else ""
        line = {"forget %": ratio, "method": naming.method(method), "requests": when}
        texts = with_interval(group, "mean", bare=True)
        several = raw["modality"].nunique() > 1
        for (name, modality), text in zip(zip(group["group"], group["modality"], strict=True), texts, strict=True):
            line[f"{name} {naming.NAMES[modality]}" if several else name] = text
        lines.append({**line, "diverged": ended})
    shown = pd.DataFrame(lines).fillna(NOTHING)
    if len(shown):
        shown["diverged"] = shown.pop("diverged")
        if not (shown["diverged"] != "").any():
            shown = shown.drop(columns="diverged")
    what = "image and text" if raw["modality"].nunique() > 1 else "image"
    return Table(
        "sequence", "Accuracy after each request",
        f"Accuracy on {what} questions of the test half, with 95 % intervals over people: after each request, of the "
        "same winner with all people in one request, and of the reference.", raw, shown,
    )  # fmt: skip


def longest(study: StudyResults) -> pd.DataFrame:
    """The image questions of every winner with sequential requests; of several sequences the longest."""
    found = table(study)
    most = found.groupby(["method", "ratio"])["requests"].transform("max")
    asked = (found["modality"] == "image_text") & (
        (found["group"] == "retain") | found["group"].str.startswith("request")
    )
    return found[(found["requests"] == most) & asked].reset_index(drop=True)


def draw(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A small panel for each winner: the people of each request and the retained people, after every request."""
    order = {method: place for place, method in enumerate(methods)}
    cases = sorted(set(zip(data["ratio"], data["method"], strict=True)), key=lambda c: (c[0], order[c[1]]))
    groups = sorted((g for g in data["group"].unique() if g != "retain"), key=lambda g: int(g.split()[1]))
    looks = {group: _look(number, len(groups)) for number, group in enumerate(groups)} | {"retain": RETAIN}
    figure, axes = grid(len(cases), 1.5, "requests done", "accuracy")
    for axis, (ratio, method) in zip(axes, cases, strict=True):
        mine = data[(data["ratio"] == ratio) & (data["method"] == method)]
        _panel(axis, mine, looks)
        ended = ", diverged" if (mine["diverged"] != "").any() else ""
        axis.set_title(naming.wrapped(f"{naming.method(method)}, {ratio} %{ended}", 26), fontsize=7)
    marks = [mark(group if group == "retain" else f"people of {group}", how, line=True) for group, how in looks.items()]
    band = Line2D([], [], color=GREY, linewidth=5, alpha=0.5, label="reference, forget people")
    once = Line2D(
        [], [], color=INK, marker="o", markerfacecolor="none", linestyle="", markersize=4, label="all in one request"
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
    place = (number + 1) / (max(count, 2) + 1)  # without the ends, which are too dark and too pale
    return Look(mpl.colormaps["viridis"](place)[:3], MARKERS[number % len(MARKERS)], DASHES[number % len(DASHES)], 3.5)


def _told(found: Winner, goal: Goal) -> list[tuple[str, str]]:
    """What to say about one sequence: the kind of sentence and what it lists."""
    name, done = naming.method(found.method), int(found.turns.rows["step"].max())
    ended = f"{name} ({done} of {found.turns.requests} requests done; {found.turns.record.diverged})"
    said = [("ended", ended)] if found.turns.record.diverged else []
    if _destroyed(found):
        return [("destroyed", f"{name} (after request {done})"), *said]
    if done < 2:
        return said
    _, back = first(found, goal)
    if math.isnan(back.mean):
        return [("little", name), *said]
    kind = "back" if back.mean >= SMALLEST_GAP else "stayed"
    return [(kind, f"{name} {_percent(back)} (after request {done})" if kind == "back" else name), *said]


def _back(means: Values) -> Values:
    """The part of what was removed that is back; not a number where nothing was removed."""
    removed = means[:, 0] - means[:, 1]
    return np.asarray((means[:, 2] - means[:, 1]) / np.where(removed > 0, removed, np.nan), dtype=float)


def _groups(rows: pd.DataFrame, turns: InTurn, goal: Goal) -> list[tuple[str, str, pd.DataFrame]]:
    """The rows of each group of people and modality."""
    asked = rows[_asked(rows, goal)]
    forget = asked[asked["role"] == "forget"]
    parts = {
        f"request {number}": forget[forget["person"].isin(who)] for number, who in enumerate(turns.record.people, 1)
    }
    parts |= {role: asked[asked["role"] == role] for role in OTHERS}
    return [
        (name, str(modality), group) for name, part in parts.items() for modality, group in part.groupby("modality")
    ]


def _asked(rows: pd.DataFrame, goal: Goal) -> pd.Series[bool]:
    modalities = ("image_text",) if goal == "visual" else ("image_text", "text")
    return (rows["task"] == "classification") & rows["modality"].isin(modalities)


def _destroyed(found: Winner) -> bool:
    rows = found.turns.rows
    retain = rows[(rows["role"] == "retain") & (rows["task"] == "classification")]
    levels = retain.pivot_table(values="score", index="step", columns="modality", aggfunc="mean")
    return bool(len(levels) and (levels.iloc[-1] < BROKEN * levels.iloc[0]).any())


def _percent(part: Interval) -> str:
    if math.isnan(part.low):
        return f"{100 * part.mean:.0f} %"
    return f"{100 * part.mean:.0f} % [{100 * part.low:.0f}, {100 * part.high:.0f}]"


SECTION = Section("Sequential unlearning", 50, parts)
