"""The scores of vanilla, the reference and the winners, and whether there was anything to forget."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import intervals, naming
from analysis.naming import NAMES
from analysis.plots import Plot
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.style import BLIND, INK, TEXT, YARDSTICKS, look
from analysis.tables import NOTHING, Table, number, with_interval
from analysis.trials import NAN, no_rows, report_rows, with_keys
from study.core.terms import MODALITIES, ROLES, TASKS
from study.metrics.intervals import Block, Interval, estimate
from study.metrics.scored import KIND

SCORE_COLUMNS = ["method", "ratio", "role", "modality", "task", "measure", "mean", "low", "high", "people", "questions",
                 "seeds", "seed_sd"]  # fmt: skip
GATE_COLUMNS = ["ratio", "role", "modality", "vanilla", "reference", "gap", "gap_low", "gap_high", "vanilla_blind",
                "reference_blind", "people"]  # fmt: skip
BLIND_COLUMNS = ["method", "ratio", "role", "mean", "low", "high", "people", "questions"]
MEASURES = (("classification", "score"), ("classification", "probability"), *((task, "score") for task in TASKS[1:]))
NEAR = "near"
"""The set of the retained people who look or are named most like the forget people. It is part of the retain set."""
SETS = (*ROLES[: ROLES.index("retain") + 1], NEAR, *ROLES[ROLES.index("retain") + 1 :])
NAME_WIDTH = 30
"""Characters in a line of a method's name beside a panel."""


def parts(study: StudyResults) -> Iterator[Part]:
    """The figure of accuracies, a table for each task, and the gate."""
    raw = scores(study)
    yield Plot(
        "scores",
        "Accuracy on multiple-choice questions of the test half, with 95 % intervals over people and seeds. The dashed "
        "line is the accuracy of vanilla when all pictures are grey.",
        score_data(study),
        draw_scores,
    )
    for task, measure in MEASURES:
        yield score_table(raw, task, measure)
    yield gate_table(study)


def _with_near(rows: pd.DataFrame, people: Collection[str]) -> pd.DataFrame:
    """The rows, and once more those of the retained people who are near."""
    near = rows[(rows["role"] == "retain") & rows["person"].isin(people)]
    return pd.concat([rows, near.assign(role=NEAR)], ignore_index=True)


@lru_cache(maxsize=4)
def scores(study: StudyResults) -> pd.DataFrame:
    """Means on the test half with 95 % intervals over people, for vanilla, the reference and every winner.

    One line per method x ratio x role x modality x task x measure (`score` everywhere, `probability` of the right
    option for classification). `seed_sd` is the standard deviation of the means of the seeds.
    """
    lines = []
    for ratio in study.ratios:
        for label, members in study.labelled(ratio):
            rows = _with_near(report_rows(study, members), study.near.get(ratio, frozenset()))
            lines += [{"method": label, "ratio": ratio, **line} for line in _scores_of(rows)]
    table = pd.DataFrame(lines, columns=SCORE_COLUMNS)
    order = {name: place for place, name in enumerate([*SETS, *MODALITIES, *TASKS])}
    return table.sort_values(
        ["ratio", "role", "modality", "task", "measure"], key=lambda c: c.map(lambda v: order.get(v, v)),
        kind="stable", ignore_index=True,
    )  # fmt: skip


def blind(study: StudyResults) -> pd.DataFrame:
    """Accuracy of vanilla and the reference on image classification when every picture is grey, test half only."""
    lines = []
    for ratio in study.ratios:
        for kind in ("vanilla", "reference"):
            found = [(trial.seed, study.rows(trial.key, "blind")) for trial in study.yardsticks(kind, ratio)]
            parts = [rows[rows["half"] == "report"].assign(seed=seed) for seed, rows in found if rows is not None]
            rows = pd.concat(parts or [no_rows()])
            for role, group in rows.groupby("role"):
                value = intervals.mean(group).interval()
                size = {"people": group["person"].nunique(), "questions": group["question"].nunique()}
                lines.append({"method": kind, "ratio": ratio, "role": role, **value._asdict(), **size})
    return pd.DataFrame(lines, columns=BLIND_COLUMNS)


@lru_cache(maxsize=4)
def gate(study: StudyResults) -> pd.DataFrame:
    """Did vanilla memorize, and did the reference not? Accuracy of both on every set, test half.

    `gap` = vanilla - reference with its 95 % interval, paired by person; the blind columns repeat `blind`.
    """
    level = blind(study).set_index(["ratio", "role", "method"])["mean"]
    lines = []
    for ratio in study.ratios:
        both = [report_rows(study, study.yardsticks(kind, ratio)) for kind in ("vanilla", "reference")]
        for role, modality in ((role, modality) for role in ROLES for modality in MODALITIES):
            chosen = [rows[(rows["role"] == role) & (rows["modality"] == modality)] for rows in both]
            choices = [rows[rows["task"] == "classification"] for rows in chosen]
            if not all(map(len, choices)):
                continue
            gap, levels, people = _gap(*choices)
            grey = [level.get((ratio, role, kind), NAN) for kind in ("vanilla", "reference")]
            seen = grey if modality == "image_text" else [NAN, NAN]
            lines.append([ratio, role, modality, *levels, *gap, *seen, people])
    return pd.DataFrame(lines, columns=GATE_COLUMNS)


def _gap(vanilla: pd.DataFrame, reference: pd.DataFrame) -> tuple[Interval, list[float], int]:
    """The accuracy of vanilla above that of the references, paired by person; both; the number of people."""
    tables = [intervals.table(rows) for rows in (vanilla, reference)]
    common = tables[0].index.intersection(tables[1].index)
    values = [table.loc[common].to_numpy(dtype=float) for table in tables]
    blocks = [Block(values[0], ("people", "seed of vanilla")), Block(values[1], ("people", "seed of the reference"))]
    found = estimate(lambda v: float(v[0].mean() - v[1].mean()), blocks, ["people"], [b.axes[1] for b in blocks])
    return found.interval(), [float(v.mean()) for v in values], len(common)


def score_table(raw: pd.DataFrame, task: str, measure: str) -> Table:
    """Scores of one task, one column for each role and modality."""
    mine = raw[(raw["task"] == task) & (raw["measure"] == measure)]
    places = [(role, modality) for role in SETS for modality in MODALITIES]
    lines = []
    for (ratio, method), group in mine.groupby(["ratio", "method"], sort=False):
        line = {"forget %": ratio, "method": naming.method(method)}
        for role, modality in places:
            cell = group[(group["role"] == role) & (group["modality"] == modality)]
            if not cell.empty:
                line[f"{role} {NAMES.get(modality, modality)}"] = with_interval(cell, "mean", bare=True).item()
        lines.append(line)
    shown = pd.DataFrame(lines).fillna(NOTHING)
    what = {"generation": "ROUGE-L", "cloze": "accuracy"}.get(task, "accuracy")
    what = "probability of the right option" if measure == "probability" else what
    note = "Test half, mean over people with its 95 % interval."
    if (mine["role"] == NEAR).any():
        note += " Near: those of the retain set who look or are named most like the people to be forgotten."
    return Table(f"{task}_{measure}", f"{task.capitalize()}: {what}", note, mine, shown)


def gate_table(study: StudyResults) -> Table:
    """Whether there was anything to forget."""
    raw = gate(study)
    for kind in ("vanilla", "reference"):
        raw = with_keys(study, raw.assign(method=kind)).rename(columns={"key": f"{kind}_key"}).drop(columns="method")
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "questions": raw["role"] + " " + raw["modality"].replace(NAMES),
        **{name: raw[name].map(number) for name in ("vanilla", "reference")},
        "gap": with_interval(raw, "gap"), "vanilla blind": raw["vanilla_blind"].map(number),
        "reference blind": raw["reference_blind"].map(number), "people": raw["people"],
    })  # fmt: skip
    return Table(
        "gate", "Gate: was there anything to forget?",
        "Multiple-choice accuracy on the test half. The gap must be clear on what is to be forgotten and small on the "
        "retain set. Blind: accuracy on the same image questions with grey pictures, that is, without looking."
        + " The reference is the base model, as none was given." * study.by_base_model,
        raw, shown,
    )  # fmt: skip


def _scores_of(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The lines of one model; its rows are grouped once for all of them, which is what takes the time."""
    if rows.empty:
        return
    asked = rows.groupby(KIND)[["person", "question"]].nunique()
    people = rows.groupby([*KIND, "person", "seed"])[["score", "probability"]].mean()
    seeds = rows.groupby([*KIND, "seed"])[["score", "probability"]].mean()
    for found, mine in people.groupby(KIND):
        role, modality, task = map(str, found)
        size, of_seeds = asked.loc[(role, modality, task), :], seeds.loc[(role, modality, task), :]
        for measure in (measure for of, measure in MEASURES if of == task):
            yield {
                "role": role, "modality": modality, "task": task, "measure": measure,
                **intervals.of_means(mine[measure]).interval()._asdict(), "people": size["person"],
                "questions": size["question"], "seeds": len(of_seeds), "seed_sd": float(of_seeds[measure].std()),
            }  # fmt: skip


def score_data(study: StudyResults) -> pd.DataFrame:
    """Classification accuracy of vanilla, the reference and the winners, with vanilla's blind level where known."""
    found = scores(study)
    shown = found[(found["task"] == "classification") & (found["measure"] == "score") & (found["role"] != NEAR)]
    grey = blind(study)
    grey = grey[grey["method"] == "vanilla"].assign(modality="image_text").rename(columns={"mean": "blind"})
    place = ["ratio", "role", "modality"]
    return shown.merge(grey[[*place, "blind"]].astype({"blind": float}), on=place, how="left")


def draw_scores(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A block of panels for each ratio, a panel for each group of questions, a line for each model."""
    ratios = sorted(data["ratio"].unique())
    places = list(dict.fromkeys(zip(data["role"], data["modality"], strict=True)))
    models = [label for label in (*YARDSTICKS, *methods) if (data["method"] == label).any()]
    names = [naming.wrapped(naming.method(label), NAME_WIDTH) for label in models]
    lines = [name.count("\n") + 1.0 for name in names]
    height = 0.15 * sum(lines) + 0.35
    figure = Figure(figsize=(TEXT, height * len(ratios) + 0.4), layout="constrained")
    axes = figure.subplots(len(ratios), len(places), squeeze=False, sharex=True, sharey=True)
    heights = [sum(lines[:number]) + line / 2 for number, line in enumerate(lines)]
    for row, ratio in zip(axes, ratios, strict=True):
        for axis, (role, modality) in zip(row, places, strict=True):
            chosen = (data["ratio"] == ratio) & (data["role"] == role) & (data["modality"] == modality)
            _scores(axis, data[chosen], dict(zip(models, heights, strict=True)), methods)
            axis.set_title(f"{role}\n{naming.NAMES[modality]}" if ratio == ratios[0] else "")
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


SECTION = Section("Scores", 60, parts)
