"""General utility by lmms-eval, where `mus general-utility` has measured it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis import naming
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.tables import NOTHING, Table, number
from study.core.files import read_object
from study.core.records import TrialRecord

SETTINGS = ["limit", "batch_size", "model", "model_args", "version"]
"""What must be equal for two numbers of a task to be comparable."""
COLUMNS = ["ratio", "method", "key", "task", "metric", "value", "stderr", "asked", "of", *SETTINGS, "run",
           "failed_replies"]  # fmt: skip


def parts(study: StudyResults) -> Iterator[Part]:
    """The table of general utility, or nothing if none was measured."""
    raw = measured(study)
    if raw.empty:
        return
    columns = [f"{line['task']}: {line['metric']}{_differing(raw, line)}" for _, line in raw.iterrows()]
    cells = raw.assign(column=columns, cell=[_cell(*pair) for pair in zip(raw["value"], raw["stderr"], strict=True)])
    order = list(dict.fromkeys(columns))
    lines = []
    for label, trial in _models(study):
        mine = cells[cells["key"] == trial.key].set_index("column")["cell"]
        ratio = "all" if trial.kind == "vanilla" else trial.ratio
        lines.append({"forget %": ratio, "method": label, **{name: mine.get(name, NOTHING) for name in order}})
    yield Table("general_utility", "General utility", _note(raw), raw, pd.DataFrame(lines))


def measured(study: StudyResults) -> pd.DataFrame:
    """One line for each trial, task and metric; `value` and `stderr` are lmms-eval's, NaN where it gave none."""
    lines: list[dict[str, Any]] = []
    for _, trial in _models(study):
        for at, run in enumerate(_runs(study, trial)):
            settings = {**run["settings"], "model_args": " ".join(run["settings"]["model_args"])}
            shared = {**{name: settings[name] for name in SETTINGS}, "run": at, "failed_replies": run["failed_replies"]}
            for task, metrics in run["results"].items():
                place = {"ratio": trial.ratio, "method": trial.label, "key": trial.key, "task": task}
                asked = run["questions"].get(task, {})
                lines += [{**place, "metric": name, **both, **asked, **shared} for name, both in metrics.items()]
    table = pd.DataFrame(lines, columns=COLUMNS).astype({"value": float, "stderr": float, "limit": "Int64"})
    return table.drop_duplicates(["key", "task", "metric", *SETTINGS], keep="last", ignore_index=True)


def _models(study: StudyResults) -> Iterator[tuple[str, TrialRecord]]:
    """Vanilla once, then for each ratio the reference and every winner, measured or not, and what else was measured."""
    there = {key: trial for key, trial in study.trials.items() if _runs(study, trial)}
    yield from [("vanilla", trial) for trial in there.values() if trial.kind == "vanilla"][:1]
    for ratio in study.ratios:
        stands_for = {members[0].key: label for label, members in study.labelled(ratio) if members}
        mine = [key for key, trial in there.items() if trial.ratio == ratio]
        for key in dict.fromkeys([*stands_for, *mine]):
            trial = study.trials[key]
            if trial.kind != "vanilla":
                yield naming.method(trial.label) + ("" if key in stands_for else f" {key}"), trial


def _runs(study: StudyResults, trial: TrialRecord) -> list[Any]:
    path = study.folder.general_utility(trial.key)
    return list(read_object(path, "runs")["runs"]) if path.exists() else []


def _cell(value: float, stderr: float) -> str:
    return number(value) if pd.isna(stderr) else f"{number(value)} ± {number(stderr)}"


def _differing(raw: pd.DataFrame, line: pd.Series) -> str:
    """The settings of a number in which the numbers of the table differ."""
    limit = "" if pd.isna(line["limit"]) else f", first {line['limit']}"
    varied = [name for name in SETTINGS[1:] if raw[name].nunique(dropna=False) > 1]
    return limit + "".join(f", {name.replace('_', ' ')} {line[name] or 'default'}" for name in varied)


def _note(raw: pd.DataFrame) -> str:
    release = naming.listed(sorted(raw["version"].unique()))
    note = (
        f"Measured by lmms-eval {release}, one seed, on its own scales; ± its standard error, where it gives one for "
        f"this number. {NOTHING}: not measured, or no number; a method that only adds an instruction has none."
    )
    if raw["limit"].notna().any():
        note += " Numbers on the first questions of a task are a trial run, not comparable with published numbers."
    lost = raw[raw["failed_replies"] > 0].drop_duplicates(["key", "run"])
    if len(lost):
        failed = [
            f"{line['failed_replies']} of {naming.method(line['method'])} at {line['ratio']} %"
            for _, line in lost.iterrows()
        ]
        note += f" Replies that failed inside lmms-eval, which scores them as empty: {naming.listed(failed)}."
    return note


SECTION = Section("General utility", 70, parts)
