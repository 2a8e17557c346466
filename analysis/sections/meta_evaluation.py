"""Which number to trust in a study: every metric by how well it tells the models that know from those that do not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import bootstrap
from analysis.bootstrap import Interval
from analysis.plots import Plot
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.style import BLIND, COLUMN, GREY, INK, LINE, Look, mark
from analysis.tables import Table, number, with_interval
from study.core.layout import rows_beside
from study.core.records import MetaEvaluationRecord, read_record
from study.core.rows import read_rows
from study.metrics.meta_evaluation import (
    CHECKED,
    AnyMetric,
    Member,
    State,
    auc_of_models,
    change,
    held_out,
    moves,
    orders,
    sign,
    units,
)

WEAK_AUC = 0.8
"""Below this a metric is weak: less is "acceptable" at best (Hosmer & Lemeshow 2000, sec. 5.2.4)."""
WEAK_CHANGE = 0.5
"""A metric is weak, too, if more than half of its gap moves while what is known does not."""
USUAL = "accuracy"
"""What most papers report."""
CHANGES: tuple[State, ...] = ("quantized", "relearned")
COLUMNS = ["metric", "auc", "auc_low", "auc_high", "model_auc",
           *(f"{state}{end}" for state in CHANGES for end in ("", "_low", "_high")),
           *(f"auc_{state}" for state in CHANGES), "models_that_know", "models_that_do_not", "people",
           "weak"]  # fmt: skip
WIDEST = 1.5
"""Changes beyond this are drawn at the edge: they are many times a gap that is hardly there."""
MARKERS = {"quantized": Look("#0173b2", "s", ""), "relearned": Look("#de8f05", "D", "")}


def parts(study: StudyResults) -> Iterator[Part]:
    """What was found in words, as a figure and as a table."""
    yield from said(study)
    yield Plot(
        "metric_check",
        "Every metric by how well it tells the models that know from those that do not (left; bars start at a coin's "
        "0.5, the dark one is multiple-choice accuracy) and by what part of that gap moves though nothing relevant "
        "was forgotten or learned (right): what vanilla loses by rounding, what the reference gains by relearning. "
        "Lines are 95 % intervals over people; beyond the dashed lines a metric is weak.",
        trust(study),
        draw,
    )
    yield table(study)


def pool(study: StudyResults) -> list[Member]:
    """Every model that was asked for the check, as far as it was, and passes the gate."""
    found: dict[tuple[int, int, bool], dict[State, pd.DataFrame]] = {}
    short = _short(study)
    for path in study.folder.meta_evaluations():
        note, rows = read_record(MetaEvaluationRecord, path), rows_beside(path)
        if rows.exists() and not note.failed and _who(note) not in short:
            found.setdefault(_who(note), {})[note.state] = read_rows(rows)
    return [Member(*who, rows) for who, rows in sorted(found.items()) if "plain" in rows]


@lru_cache(maxsize=4)
def trust(study: StudyResults) -> pd.DataFrame:
    """One line for each metric that has a number, the most trustworthy first: by AUC, then by both changes."""
    members = pool(study)
    apart = held_out(members)
    lines = pd.DataFrame([_line(metric, members, apart) for metric in CHECKED], columns=COLUMNS)
    lines = lines[lines["auc"].notna()]
    known = [state for state in CHANGES if lines[state].notna().any()]
    order = pd.DataFrame({
        "auc": -lines["auc"].round(3), "change": lines[known].abs().sum(axis=1, skipna=False).round(3),
    }).sort_values(["auc", "change"], kind="stable")  # fmt: skip
    return lines.loc[order.index].reset_index(drop=True)


def table(study: StudyResults) -> Table:
    """The table of the report."""
    raw = trust(study)
    shown = pd.DataFrame({
        "metric": raw["metric"].str.replace("_", " "), "AUC": with_interval(raw, "auc"),
        "AUC of models": raw["model_auc"].map(number),
        **{f"change {state}": with_interval(raw, state) for state in CHANGES}, "mark": raw["weak"],
    })  # fmt: skip
    if raw["model_auc"].isna().all():
        shown = shown.drop(columns="AUC of models")
    return Table(
        "metric_check", "Which number to trust",
        "Strict protocol, all questions about what is to be forgotten, both halves. AUC: of all pairs of one person as "
        "a model knows them that was taught this (vanilla) and one as a model does that was not (reference), the share "
        "that the metric orders as it declares; 1 separates perfectly, 0.5 is a coin, less is the wrong way round. "
        "Change quantized: what part of the gap between the two vanilla loses by mere rounding. Change relearned: what "
        "part of it the reference closes by being taught others. 0 is not fooled, 1 is taken for the other; n/a where "
        "there is no gap. What rounding does destroy and relearning does teach is in all of them: compare down the "
        f"column. Weak: AUC below {WEAK_AUC}, or a change beyond {WEAK_CHANGE} either way. Metrics that compare with a "
        "reference need a second one.", raw, shown,
    )  # fmt: skip


def said(study: StudyResults) -> list[str]:
    """What the check found, in plain sentences; nothing without a check."""
    raw = trust(study)
    if raw.empty:
        return []
    best = raw.iloc[0]
    level = int((raw["auc"].round(3) == round(best["auc"], 3)).sum()) - 1
    more = f"; {level} more {'has' if level == 1 else 'have'} this AUC" if level else ""
    name = str(best["metric"]).replace("_", " ")
    if best["weak"]:
        first = f"None of {len(raw)} metrics is to be trusted here: even the best, {name}, is weak ({best['weak']})"
    else:
        first = f"Of {len(raw)} metrics, {name} is the one to trust most here"
    return [f"{first}: {_told(best)}{more}.", *_usual(raw), *_caveats(study)]


def draw(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A line for each metric, the most trustworthy on top: a bar from 0.5 to its AUC, beside it both changes."""
    figure = Figure(figsize=(2 * COLUMN + 0.2, 0.17 * len(data) + 1.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for height, (_, line) in enumerate(data.iterrows()):
        color = INK if line["metric"] == USUAL else GREY
        left.barh(height, line["auc"] - 0.5, left=0.5, height=0.6, color=color, alpha=0.45, linewidth=0)
        left.plot([line["auc_low"], line["auc_high"]], [height, height], color=color, linewidth=1.2)
        for place, (state, how) in zip((-0.15, 0.15), MARKERS.items(), strict=True):
            values = [float(line[f"{state}{end}"]) for end in ("", "_low", "_high")]
            mean, low, high = np.clip(values, -WIDEST, WIDEST)  # NaN stays and is not drawn
            right.plot([low, high], [height + place] * 2, color=how.color, linewidth=0.9)
            right.plot(mean, height + place, marker=how.marker, color=how.color, markersize=how.size, mec="white",
                       mew=0.4)  # fmt: skip
    left.axvline(0.5, color=INK, linewidth=0.8)
    left.axvline(WEAK_AUC, color=INK, linestyle=BLIND, linewidth=0.8)
    left.set(xlim=(-0.02, 1.02), xlabel="AUC \u2191", ylim=(len(data) - 0.4, -0.6))
    left.set_yticks(range(len(data)), data["metric"].str.replace("_", " "))
    right.axvline(0.0, color=INK, linewidth=0.8)
    for end in (-WEAK_CHANGE, WEAK_CHANGE):
        right.axvline(end, color=INK, linestyle=BLIND, linewidth=0.8)
    right.set(xlim=(-WIDEST - 0.1, WIDEST + 0.1), xlabel="part of the gap that moves (0 is not fooled)")
    for axis in (left, right):
        axis.grid(axis="y", color=LINE)
        axis.tick_params(axis="y", length=0)
    marks = [mark(state, how) for state, how in MARKERS.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=2)
    return figure


def _short(study: StudyResults) -> dict[tuple[int, int, bool], str]:
    """The models that do not pass the gate, and in what."""
    return {_who(note): note.short for note in _notes(study) if note.short}


def _notes(study: StudyResults) -> list[MetaEvaluationRecord]:
    return [read_record(MetaEvaluationRecord, path) for path in study.folder.meta_evaluations()]


def _who(note: MetaEvaluationRecord) -> tuple[int, int, bool]:
    return note.ratio, note.seed, note.knows


def _usual(raw: pd.DataFrame) -> list[str]:
    """Whether the number that most papers report is among the weak ones."""
    mine = raw[raw["metric"] == USUAL]
    if mine.empty:
        return []
    line, place = mine.iloc[0], int(mine.index[0]) + 1
    verdict = f"is among the weak ones here ({line['weak']})" if line["weak"] else "is not among the weak ones here"
    told = f": {_told(line)}" if place > 1 else ""
    return [
        f"Accuracy on multiple-choice questions, which most papers report, {verdict}, "
        f"in place {place} of {len(raw)}{told}."
    ]


def _caveats(study: StudyResults) -> list[str]:
    """What the pool is, where that is little, and what was not measured."""
    members = pool(study)
    seeds = len({m.seed for m in members})
    found = []
    if seeds == 1:
        found.append(
            "The pool is one pair of models for each forget ratio, so these numbers cover the choice of people and not "
            "that of models; --metric-seeds widens it."
        )
    if short := _short(study):
        told = "; ".join(
            f"{'vanilla' if knows else 'reference'} {ratio} % seed {seed}: {reason}"
            for (ratio, seed, knows), reason in sorted(short.items())
        )
        found.append(
            f"{len(short)} of {len(members) + len(short)} models of the pool did not pass the gate and were left out "
            f"({told})."
        )
    for state in CHANGES:
        missing = sum(state not in m.rows for m in members)
        if missing:
            found.append(f"{missing} of {len(members)} models of the pool have no rows {state}.")
    failed = Counter((n.state, n.failed) for n in _notes(study) if n.failed)
    found += [
        f"Of the pool, {count} could not be asked {state}: {reason}." for (state, reason), count in failed.items()
    ]
    return found


def _line(metric: AnyMetric, members: Sequence[Member], apart: Sequence[Member]) -> dict[str, object]:
    """The numbers of one metric; `apart` is the pool with the questions that count after relearning."""
    found = {"plain": units(metric, members)}
    if found["plain"]["knows"].nunique() < 2:
        return {"metric": metric.name, "auc": math.nan}
    found |= {state: units(metric, members, state) for state in CHANGES}
    levels = {state: _auc(of_state, metric) for state, of_state in found.items()}
    moved = {
        "quantized": moves(metric, found["plain"], found["quantized"], "quantized"),
        "relearned": moves(metric, units(metric, apart), units(metric, apart, "relearned"), "relearned"),
    }
    changes = {state: bootstrap.interval(people, change) for state, people in moved.items()}
    level, models = levels["plain"], found["plain"].drop_duplicates(["ratio", "seed", "knows"])["knows"]
    line: dict[str, object] = {
        "metric": metric.name, "auc": level.mean, "auc_low": level.low, "auc_high": level.high,
        "model_auc": auc_of_models(metric, members), "models_that_know": int(models.sum()),
        "models_that_do_not": int((~models).sum()), "people": found["plain"]["person"].nunique(),
        "weak": _weak(level.mean, [interval.mean for interval in changes.values()]),
    }  # fmt: skip
    for state, interval in changes.items():
        line |= {state: interval.mean, f"{state}_low": interval.low, f"{state}_high": interval.high}
        line[f"auc_{state}"] = levels[state].mean
    return line


def _auc(found: pd.DataFrame, metric: AnyMetric) -> Interval:
    """People are resampled with all their units: a weight for each person is a mean over unit vectors."""
    return bootstrap.interval(pd.DataFrame(np.eye(found["person"].nunique())), orders(found, sign(metric)).auc)


def _weak(auc: float, changes: Sequence[float]) -> str:
    """Why a metric is not to be trusted; nothing if it may be."""
    if auc < 0.5:
        return "wrong way round"
    reasons = ["separates badly"] * (auc < WEAK_AUC) + ["easily fooled"] * any(abs(c) > WEAK_CHANGE for c in changes)
    return ", ".join(reasons)


def _told(line: pd.Series) -> str:
    """`AUC 0.98, 3 % of its gap lost by rounding and 10 % closed by relearning`."""
    parts = [f"{round(100 * line[state])} % of its gap {how}" for state, how in
             (("quantized", "lost by rounding"), ("relearned", "closed by relearning"))
             if not math.isnan(line[state])]  # fmt: skip
    return f"AUC {line['auc']:.2f}" + (f", {' and '.join(parts)}" if parts else "")


SECTION = Section("Which number to trust", 90, parts)
