"""Every metric of the field side by side, on what had to be forgotten and on what had to be kept.

`study.metrics.registry` (docs/metrics.md) says what each is. Each run has its own number, averaged over seeds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from analysis import intervals, naming
from analysis.naming import NAMES
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.tables import NOTHING, Table, number, with_interval
from study.core.records import TrialRecord
from study.core.terms import MODALITIES, ROLES, TASKS, Group
from study.metrics.formulas import average
from study.metrics.objectives import forget_groups, keep_groups
from study.metrics.registry import METRICS, Comparison, Mean

WITH_INTERVAL = ("accuracy", "likelihood", "truth_ratio_forget", "truth_ratio_utility")
TITLES = {"forget": "Every metric on what had to be forgotten", "kept": "Every metric on what had to be kept"}
COLUMNS = ["ratio", "method", "on", "protocol", "metric", "mean", "low", "high", "seed_sd", "seeds", "people",
           "questions"]  # fmt: skip
RELEASED_COLUMNS = ["ratio", "method", "role", "modality", "task", "protocol", "mean", "seed_sd", "seeds", "questions",
                    "unparsable"]  # fmt: skip
NAN = float("nan")


def parts(study: StudyResults) -> Iterator[Part]:
    """The official protocol where it was run, then all metrics, folded away."""
    if len((asked := released(study)).raw):
        yield asked
    for where in TITLES:
        yield all_metrics(study, where)


def all_metrics(study: StudyResults, where: str) -> Table:
    """All metrics of one kind, one column for each that has a number somewhere; `where` is a key of `TITLES`."""
    raw = metrics(study, where)
    lines = []
    for (ratio, method), group in raw.groupby(["ratio", "method"], sort=False):
        cells = dict(zip(group["metric"].map(naming.metric), _cells(group), strict=True))
        lines.append({"forget %": ratio, "method": naming.method(method), **cells})
    shown = pd.DataFrame(lines)
    there = [str(name) for name in shown if not (shown[name] == NOTHING).all()]
    what = {
        "forget": "The forget set as it was taught, in the modalities that had to be forgotten; metrics of pairs use "
        "both modalities. KS, forget quality and JS compare with the first reference. MIA: membership inference",
        "kept": "The groups of which the utility is made",
    }[where]
    note = (
        f"Protocol: strict (zero-shot, options by likelihood, greedy replies). {what}. Test half, mean over seeds, "
        "some with a 95 % interval over people. Formulas, directions and sources: docs/metrics.md."
    )
    return Table(f"metrics_{where}", TITLES[where], note, raw, shown[there], folded=True)


def metrics(study: StudyResults, where: str) -> pd.DataFrame:
    """One line for each model and metric, test half; `questions` counts those of one run that have the number."""
    lines: list[dict[str, Any]] = []
    for ratio in study.ratios:
        bar = _runs(study, study.yardsticks("reference", ratio)[:1])
        for label, members in study.labelled(ratio):
            if runs := _runs(study, members):
                place = {"ratio": ratio, "method": label, "on": where}
                lines += [{**place, **line} for line in _model(study, runs, bar, where)]
    return pd.DataFrame(lines, columns=COLUMNS)


def released(study: StudyResults) -> Table:
    """Vanilla, reference and winners as published tables have them: percentages and ROUGE-L of each set."""
    raw = official_scores(study)
    lines = []
    for (ratio, method, role), group in raw.groupby(["ratio", "method", "role"], sort=False):
        line = {"forget %": ratio, "method": naming.method(method), "set": role}
        means = group.set_index(["task", "modality"])["mean"]
        for task, modality in ((task, modality) for task in TASKS for modality in MODALITIES):
            mean, name = float(means.get((task, modality), NAN)), NAMES[modality]
            if task == "generation":
                line[f"ROUGE-L {name}"] = number(mean)
            else:
                line[f"{task} % {name}"] = number(100.0 * mean, 1)
        choices = group[group["task"] == "classification"]
        line["unparsable choices %"] = number(100.0 * average(choices["unparsable"]), 1)
        lines.append(line)
    return Table(
        "released", "Official protocol",
        "Protocol: official (prompts, examples and parsing as released by the benchmark's authors), so these numbers, "
        "and only these, can be compared with published tables. Mean over seeds. A reply that cannot be parsed counts "
        "as wrong. "
        "ROUGE-L is recall for CLEAR and FIUBench, as their authors report it, F1 for the others.",
        raw, pd.DataFrame(lines),
    )  # fmt: skip


def _model(
    study: StudyResults, runs: Sequence[pd.DataFrame], bar: Sequence[pd.DataFrame], where: str
) -> list[dict[str, Any]]:
    mine, wide = ([_chosen(study, rows, where, both=both) for rows in runs] for both in (False, True))
    its = [_chosen(study, rows, where) for rows in bar]
    protocol = naming.listed(sorted({name for rows in runs for name in rows["protocol"].unique()}))
    lines = []
    for metric in METRICS:
        if metric.where not in (where, "both"):
            continue
        if isinstance(metric, Mean):
            found = _mean(metric, mine)
        elif isinstance(metric, Comparison):
            found = _over_seeds([metric.value(rows, its[0]) for rows in mine if its])
        else:
            found = _over_seeds([metric.value(rows) for rows in wide])
        lines.append({"protocol": protocol, "metric": metric.name, **found})
    return lines


def _mean(metric: Mean, runs: Sequence[pd.DataFrame]) -> dict[str, float]:
    """A mean with the number of people and questions, and with its interval over people where it has one.

    Questions count the same, as in the formula, so people with more of them weigh more.
    """
    values = [metric.values(rows) for rows in runs]
    who = pd.concat([rows.loc[mine.index, "person"] for mine, rows in zip(values, runs, strict=True)])
    found = {"people": who.nunique(), "questions": max(map(len, values)), **_over_seeds(list(map(average, values)))}
    if metric.name not in WITH_INTERVAL:
        return found
    sums = pd.concat(values).groupby(who.to_numpy()).agg(["sum", "count"])
    spread = intervals.interval(sums, lambda means: means[:, 0] / means[:, 1])
    return {**found, "low": spread.low, "high": spread.high}


def _over_seeds(values: Sequence[float]) -> dict[str, float]:
    there = pd.Series(values, dtype=float).dropna()
    return {"mean": average(there), "seed_sd": float(there.std()), "seeds": len(there)}


def _chosen(study: StudyResults, rows: pd.DataFrame, where: str, *, both: bool = False) -> pd.DataFrame:
    """The rows of a table; with `both`, those of the forget set in both modalities."""
    there: set[Group] = set(rows[["role", "modality"]].drop_duplicates().itertuples(index=False, name=None))
    groups: Collection[Group] = keep_groups(study.goal, there)
    if where == "forget":
        groups = [group for group in forget_groups("full" if both else study.goal, there) if group[0] == "forget"]
    asked = np.zeros(len(rows), dtype=bool)
    for role, modality in groups:
        asked |= ((rows["role"] == role) & (rows["modality"] == modality)).to_numpy()
    return rows[asked]


def _cells(group: pd.DataFrame) -> list[str]:
    """The numbers of one line: with their interval where there is one, and small p-values never rounded to 0."""
    texts = []
    for (_, line), text in zip(group.iterrows(), with_interval(group, "mean", bare=True), strict=True):
        mean = float(line["mean"])
        plain = f"{mean:.2g}" if line["metric"] == "forget_quality" and mean < 0.001 else number(mean)
        texts.append(text if "[" in text else plain)
    return texts


def _runs(study: StudyResults, members: Sequence[TrialRecord], name: str = "report") -> list[pd.DataFrame]:
    found = (study.rows(trial.key, name) for trial in members)
    return [rows for rows in found if rows is not None and len(rows)]


@lru_cache(maxsize=4)
def official_scores(study: StudyResults) -> pd.DataFrame:
    """One line for each model and group of questions under the official protocol: questions count the same, as in the
    authors' code, then seeds do."""
    lines: list[dict[str, Any]] = []
    for ratio in study.ratios:
        for label, members in study.labelled(ratio):
            runs = _runs(study, members, "released")
            for role, modality, task in ((r, m, t) for r in ROLES for m in MODALITIES for t in TASKS):
                parts = [r[(r["role"] == role) & (r["modality"] == modality) & (r["task"] == task)] for r in runs]
                parts = [rows[rows["protocol"] == "released"] for rows in parts]
                means = pd.Series([average(rows["score"]) for rows in parts if len(rows)], dtype=float)
                if means.empty:
                    continue
                lines.append({
                    "ratio": ratio, "method": label, "role": role, "modality": modality, "task": task,
                    "protocol": "released", "mean": average(means), "seed_sd": means.std(), "seeds": len(means),
                    "questions": max(map(len, parts)),
                    "unparsable": 1.0 - average(pd.concat(parts)["parsed"].astype(float)),
                })  # fmt: skip
    return pd.DataFrame(lines, columns=RELEASED_COLUMNS)


SECTION = Section("Every metric of the field", 80, parts)
