"""The trials of a study as one frame that all sections read, with those of the search and the winners."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache

import pandas as pd

from analysis import pareto
from analysis.naming import HALVES
from analysis.study_folder import StudyResults
from study.core.records import TrialRecord
from study.core.rows import ROW_COLUMNS
from study.core.terms import Half
from study.metrics import recovery
from study.metrics.objectives import BROKEN, distance_to_ideal, objectives

OBJECTIVES = ["forgetting", "utility", "distance"]
TRIAL_COLUMNS = ["key", "method", "ratio", "seed", "kind", "state", "number", "default", "winner", "confirmation",
                 "front", *OBJECTIVES, "parameters", "unlearn_seconds", "score_seconds", "overhead_seconds",
                 "unlearn_flops", "score_flops", "reason"]  # fmt: skip
WINNER_COLUMNS = ["method", "ratio", "key", "parameters", "seeds", "seeds_planned", *OBJECTIVES,
                  *(f"select_{name}" for name in OBJECTIVES), "distance_min", "distance_max", "retained",
                  "broken"]  # fmt: skip
STATES = ["complete", "diverged", "failed", "unfinished"]
NAN = float("nan")


def search_attack(study: StudyResults) -> str:
    """The key of the attack that is run on every trial for the recovery objective; empty for a study without one."""
    return str((study.settings.get("robustness") or {}).get("key", ""))


def columns(study: StudyResults, names: Sequence[str]) -> list[str]:
    """The columns of a table, with those of recovery after those of utility where it is an objective."""
    both = [(name, name.replace("utility", "recovery")) for name in names]
    return [
        one for name, third in both for one in ([name, third] if third != name and search_attack(study) else [name])
    ]


@lru_cache(maxsize=4)
def trials(study: StudyResults) -> pd.DataFrame:
    """One line for each trial, objectives on the validation half. What could not be scored says why in `reason`.

    `number` is that of the first proposal of the search that led to it (missing for confirmations, vanilla and
    reference). `front` is within the trials of the search of the same method and ratio.
    """
    first = {p.trial: p.number for p in reversed(study.proposals)}
    defaults = {p.trial for p in study.proposals if p.default}
    chosen = {keys[0] for keys in study.winners.values()}
    repeats = {key for keys in study.winners.values() for key in keys[1:]}
    lines = []
    for trial in study.trials.values():
        values, problem = objectives_of(study, trial.key, "select")
        lines.append({
            "key": trial.key, "method": trial.label, "ratio": trial.ratio, "seed": trial.seed, "kind": trial.kind,
            "state": trial.state, "number": first.get(trial.key), "default": trial.key in defaults,
            "winner": trial.key in chosen, "confirmation": trial.key in repeats, "front": False, **values,
            "parameters": json.dumps(trial.hyperparameters, sort_keys=True), **trial.cost,
            "score_flops": trial.cost.get("flops"), "reason": trial.reason or problem,
        })  # fmt: skip
    table = pd.DataFrame(lines, columns=columns(study, TRIAL_COLUMNS)).astype({"number": "Int64"})
    searched = table[(table["kind"] == "method") & table["number"].notna()]
    table.loc[searched.index, "front"] = pareto.on_front(searched)
    return table.sort_values(["method", "ratio", "number", "seed", "key"], ignore_index=True)


@lru_cache(maxsize=4)
def proposals(study: StudyResults) -> pd.DataFrame:
    """One line for each proposal of the search with the state and objectives of its trial; `duplicate` repeats one."""
    scored = trials(study).set_index("key")[["state", *columns(study, OBJECTIVES)]]
    lines = pd.DataFrame(
        [{"method": p.method, "ratio": p.ratio, "number": p.number, "key": p.trial} for p in study.proposals],
        columns=["method", "ratio", "number", "key"],
    )
    lines["duplicate"] = lines.duplicated(["method", "ratio", "key"])
    table = lines.join(scored, on="key")
    table = table.assign(state=table["state"].fillna("unfinished"))
    if search_attack(study):
        lost = (table["state"] == "complete") & table["recovery"].isna()
        table.loc[lost, "state"] = [_attack_state(study, key) for key in table.loc[lost, "key"]]
    return table


@lru_cache(maxsize=4)
def winners(study: StudyResults) -> pd.DataFrame:
    """One line for each winner: objectives on the test half (mean over seeds) beside those that selected it.

    `retained` is its retain accuracy as a fraction of vanilla's; `broken` marks a collapsed model (see `BROKEN`).
    """
    lines = []
    for (method, ratio), keys in study.winners.items():
        members = [study.trials[key] for key in keys if key in study.trials]
        if not members:
            continue
        reported = [objectives_of(study, trial.key, "report")[0] for trial in members]
        there = pd.DataFrame(reported, columns=columns(study, OBJECTIVES), dtype=float).dropna()
        selected, _ = objectives_of(study, members[0].key, "select")
        averages: dict[str, float] = {name: float(there[name].mean()) for name in columns(study, OBJECTIVES)}
        lines.append({
            "method": method, "ratio": ratio, "key": keys[0], "seeds": len(there), "seeds_planned": len(keys),
            "parameters": json.dumps(members[0].hyperparameters, sort_keys=True), **averages,
            **{f"select_{name}": value for name, value in selected.items()},
            "distance_min": there["distance"].min(), "distance_max": there["distance"].max(),
            **quality(study, members),
        })  # fmt: skip
    table = pd.DataFrame(lines, columns=columns(study, WINNER_COLUMNS))
    return table.sort_values(["ratio", "distance", "method"], ignore_index=True)


def quality(study: StudyResults, members: Sequence[TrialRecord]) -> dict[str, float | bool]:
    """`retained` and `broken` of the trials that stand for one model, on the test half, averaged over them."""
    usable = [objectives_of(study, trial.key, "report")[0]["utility"] for trial in members]
    utility = float(pd.Series(usable, dtype=float).mean())
    before = _retain_accuracy(study, study.yardsticks("vanilla", members[0].ratio)) if members else NAN
    retained = _retain_accuracy(study, members) / before if before > 0 else NAN
    return {"retained": retained, "broken": bool(utility < BROKEN or retained < BROKEN)}


@lru_cache(maxsize=4)
def counts(study: StudyResults) -> pd.DataFrame:
    """Proposals of each method and ratio by outcome; the outcomes add up to `proposals`."""
    table = proposals(study)
    fate = table["state"].where(~table["duplicate"], "duplicate")
    known = [*STATES, "duplicate"]
    columns = known + sorted(set(fate) - set(known))
    found = pd.crosstab([table["method"], table["ratio"]], fate).reindex(columns=columns, fill_value=0)
    found.insert(0, "proposals", found.sum(axis=1))
    return found.rename_axis(columns=None).reset_index()


@lru_cache(maxsize=8192)
def objectives_of(study: StudyResults, key: str, half: Half) -> tuple[dict[str, float], str]:
    """Objectives and distance of a trial on one half, or NaN for each that is missing and why it is."""
    trial = study.trials[key]
    nothing = dict.fromkeys(columns(study, OBJECTIVES), NAN)
    if trial.state != "complete":
        return nothing, ""
    bars = [study.yardsticks(kind, trial.ratio)[:1] for kind in ("vanilla", "reference")]
    found = [study.rows(t.key, half) for t in [trial, *(bar for group in bars for bar in group)]]
    if len(found) < 3 or any(rows is None for rows in found):
        return nothing, f"the trial, vanilla or the reference has not been scored on the {HALVES[half]}"
    try:
        mine, vanilla, reference = (rows for rows in found if rows is not None)
        values = objectives(mine, vanilla, reference, study.goal)
    except ValueError as error:
        return nothing, str(error)
    problem = ""
    if search_attack(study):
        values["recovery"], problem = _recovery(study, trial, half, values["utility"])
    return {**values, "distance": distance_to_ideal(**values)}, problem


def _recovery(study: StudyResults, trial: TrialRecord, half: Half, utility: float) -> tuple[float, str]:
    """The recovery of a trial under the search attack, or NaN and why that is not known."""
    met = [trial, *study.yardsticks("reference", trial.ratio)[:1]]
    hits = [hit for t in met if (hit := study.attacks(t.key).get(search_attack(study)))]
    if failed := [hit.record.reason for hit in hits if hit.state == "failed"]:
        return NAN, f"the search attack failed: {failed[0]}"
    if len(hits) < 2 or any(hit.state == "unfinished" for hit in hits):
        return NAN, "the search attack has not been run"
    own, control = (hit.rows for hit in hits)
    try:
        found = recovery.objective(own, control, half, utility=utility, keeps=study.attack_keeps)
    except ValueError as error:
        return NAN, str(error)
    return found, "the search attack measured nothing" if math.isnan(found) else ""


def _attack_state(study: StudyResults, key: str) -> str:
    """The state of a proposal that was scored but whose recovery is not known."""
    hit = study.attacks(key).get(search_attack(study))
    return "unfinished" if hit is None or hit.state == "unfinished" else "attack failed"


def report_rows(study: StudyResults, members: Sequence[TrialRecord]) -> pd.DataFrame:
    """The rows of some trials on the test half together, with the `seed` of each."""
    found = [(trial.seed, study.rows(trial.key, "report")) for trial in members]
    parts = [rows.assign(seed=seed) for seed, rows in found if rows is not None]
    return pd.concat(parts, ignore_index=True) if parts else no_rows()


def _retain_accuracy(study: StudyResults, members: Sequence[TrialRecord]) -> float:
    rows = report_rows(study, members)
    chosen = rows[(rows["role"] == "retain") & (rows["task"] == "classification")]
    return math.fsum(chosen["score"]) / len(chosen) if len(chosen) else NAN


def no_rows() -> pd.DataFrame:
    """The columns of rows, without one."""
    return pd.DataFrame(columns=[*ROW_COLUMNS, "seed"])
