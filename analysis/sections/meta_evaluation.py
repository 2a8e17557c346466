"""Meta-evaluation: how well every metric tells models that know from models that do not, and how robust it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import intervals, naming
from analysis.plots import Plot
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.style import BLIND, GREY, INK, LINE, TEXT, Look, mark
from analysis.tables import Table, number, with_interval
from study.core.layout import rows_beside
from study.core.records import MetaEvaluationRecord, read_record
from study.core.rows import read_rows
from study.metrics.intervals import Interval
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
"""A metric is weak, too, if more than half of its gap moves although nothing relevant was forgotten or learned: it
then says more about the change than about knowledge."""
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
        "Faithfulness and robustness of every metric. Left: AUC in telling models that know from models that do not "
        "(bars start at chance, 0.5; the dark one is multiple-choice accuracy). Right: the fraction of that gap that "
        "moves although nothing relevant was forgotten or learned: what vanilla loses by quantization, what the "
        "reference gains by relearning other people. Lines are 95 % intervals over people; beyond the dashed lines a "
        "metric is weak.",
        trust(study),
        draw,
    )
    yield table(study)


def pool(study: StudyResults) -> list[Member]:
    """Every model of the meta-evaluation that was scored and passes the gate."""
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
        "metric": raw["metric"].map(naming.metric), "AUC": with_interval(raw, "auc"),
        "AUC of models": raw["model_auc"].map(number),
        **{f"change {state}": with_interval(raw, state) for state in CHANGES}, "mark": raw["weak"],
    })  # fmt: skip
    if raw["model_auc"].isna().all():
        shown = shown.drop(columns="AUC of models")
    return Table(
        "metric_check", "Meta-evaluation of the metrics",
        "Strict protocol, all questions about what is to be forgotten, both halves. AUC (faithfulness): take one "
        "person as seen by a model that was taught them (vanilla) and one as seen by a model that was not (reference); "
        "it is the fraction of all such pairs that the metric orders as it declares. 1 separates perfectly, 0.5 is "
        "chance, less is the wrong way round. Change (robustness): the fraction of the gap between both models that "
        "vanilla loses by mere quantization, and that the reference closes by relearning other people. 0 is not "
        "fooled, 1 takes one model for the other; n/a where there is no gap. Quantization does destroy and relearning "
        "does teach a little, which affects all metrics alike: compare down the column. Weak: AUC below "
        f"{WEAK_AUC}, or a change beyond {WEAK_CHANGE} in either direction. Metrics that compare with a reference need "
        "a second one.", raw, shown,
    )  # fmt: skip


def said(study: StudyResults) -> list[str]:
    """The result in plain sentences; nothing without a meta-evaluation."""
    raw = trust(study)
    if raw.empty:
        return []
    best = raw.iloc[0]
    level = int((raw["auc"].round(3) == round(best["auc"], 3)).sum()) - 1
    more = f"; {level} more {'has' if level == 1 else 'have'} the same AUC" if level else ""
    name = naming.metric(best["metric"])
    if best["weak"]:
        first = f"None of {len(raw)} metrics can be trusted here: even the best, {name}, is weak ({best['weak']})"
    else:
        first = f"Of {len(raw)} metrics, {name} is the most trustworthy here"
    return [f"{first}: {_told(best)}{more}.", *_usual(raw), *_caveats(study)]


def draw(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A line for each metric, the most trustworthy on top: a bar from 0.5 to its AUC, beside it both changes."""
    figure = Figure(figsize=(TEXT, 0.17 * len(data) + 1.0), layout="constrained")
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
    left.set_yticks(range(len(data)), data["metric"].map(naming.metric))
    right.axvline(0.0, color=INK, linewidth=0.8)
    for end in (-WEAK_CHANGE, WEAK_CHANGE):
        right.axvline(end, color=INK, linestyle=BLIND, linewidth=0.8)
    right.set(xlim=(-WIDEST - 0.1, WIDEST + 0.1), xlabel="fraction of the gap that moves (0: not fooled)")
    for axis in (left, right):
        axis.grid(axis="y", color=LINE)
        axis.tick_params(axis="y", length=0)
    marks = [mark(state, how) for state, how in MARKERS.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=2)
    return figure


def _short(study: StudyResults) -> dict[tuple[int, int, bool], str]:
    """The models that do not pass the gate, and where they fall short."""
    return {_who(note): note.short for note in _notes(study) if note.short}


def _notes(study: StudyResults) -> list[MetaEvaluationRecord]:
    return [read_record(MetaEvaluationRecord, path) for path in study.folder.meta_evaluations()]


def _who(note: MetaEvaluationRecord) -> tuple[int, int, bool]:
    return note.ratio, note.seed, note.knows


def _usual(raw: pd.DataFrame) -> list[str]:
    """Whether the metric that most papers report is among the weak ones."""
    mine = raw[raw["metric"] == USUAL]
    if mine.empty:
        return []
    line, place = mine.iloc[0], int(mine.index[0]) + 1
    verdict = f"is weak here ({line['weak']})" if line["weak"] else "is not weak here"
    told = f": {_told(line)}" if place > 1 else ""
    return [f"Multiple-choice accuracy, which most papers report, {verdict} and ranks {place} of {len(raw)}{told}."]


def _caveats(study: StudyResults) -> list[str]:
    """Where the pool of models is small, and what was not measured."""
    members = pool(study)
    seeds = len({m.seed for m in members})
    found = []
    if seeds == 1:
        found.append(
            "The pool has one pair of models for each forget ratio, so these intervals cover the choice of people and "
            "not that of models; --metric-seeds adds models."
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
            found.append(f"{missing} of {len(members)} models of the pool have not been scored {state}.")
    failed = Counter((n.state, n.failed) for n in _notes(study) if n.failed)
    found += [
        f"{count} of the pool could not be scored {state}: {reason}." for (state, reason), count in failed.items()
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
    changes = {state: intervals.interval(lost, change) for state, lost in moved.items()}
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
    """People are left out with all their units: a weight for each person is a mean over unit vectors."""
    return intervals.interval(
        pd.DataFrame(np.eye(found["person"].nunique())), orders(found, sign(metric)).auc, share=True
    )


def _weak(auc: float, changes: Sequence[float]) -> str:
    """Why a metric cannot be trusted; nothing if it can."""
    if auc < 0.5:
        return "wrong way round"
    reasons = ["separates badly"] * (auc < WEAK_AUC) + ["easily fooled"] * any(abs(c) > WEAK_CHANGE for c in changes)
    return ", ".join(reasons)


def _told(line: pd.Series) -> str:
    """`AUC 0.98, 3 % of its gap lost by quantization and 10 % closed by relearning`."""
    parts = [f"{round(100 * line[state])} % of its gap {how}" for state, how in
             (("quantized", "lost by quantization"), ("relearned", "closed by relearning"))
             if not math.isnan(line[state])]  # fmt: skip
    return f"AUC {line['auc']:.2f}" + (f", {' and '.join(parts)}" if parts else "")


SECTION = Section("Meta-evaluation: which metrics to trust", 90, parts)
