"""The trials of a study as one frame that all sections read, with those of the search and the winners."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from analysis import comparison, pareto
from analysis.naming import HALVES
from analysis.study_folder import StudyResults
from study.core.records import TrialRecord
from study.core.rows import ROW_COLUMNS
from study.core.terms import Half
from study.metrics import recovery
from study.metrics.objectives import BROKEN, distance_to_ideal, mean_gap, objectives

OBJECTIVES = ["forget_gap", "utility", "distance"]
TRIAL_COLUMNS = ["key", "method", "ratio", "seed", "kind", "state", "number", "default", "winner", "confirmation",
                 "front", *OBJECTIVES, "parameters", "unlearn_seconds", "score_seconds", "overhead_seconds",
                 "unlearn_flops", "score_flops", "reason"]  # fmt: skip
WINNER_COLUMNS = ["method", "ratio", "key", "parameters", "seeds", "seeds_planned", *OBJECTIVES,
                  *(f"select_{name}" for name in OBJECTIVES), "distance_min", "distance_max", "retained", "broken",
                  "forget_gap_low", "forget_gap_high", "mean_gap", "farther", "farther_low", "farther_high", "tied",
                  "known_person", "known", "noise_floor"]  # fmt: skip
STATES = ["complete", "stopped", "collapsed", "diverged", "failed", "unfinished"]
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
    table = table.assign(state=table["state"].astype(object).fillna("unfinished"))  # numbers where nothing ended
    if search_attack(study):
        lost = (table["state"] == "complete") & table["recovery"].isna()
        table.loc[lost, "state"] = [_attack_state(study, key) for key in table.loc[lost, "key"]]
    return table


@lru_cache(maxsize=64)  # small, and a pool asks many studies more than once
def winners(study: StudyResults) -> pd.DataFrame:
    """One line for each winner: objectives on the test half (mean over seeds) beside those that selected it.

    `retained` is its retain accuracy as a fraction of vanilla's; `broken` marks a collapsed model (see `BROKEN`).
    `farther` is how much farther from the ideal point it is than the nearest usable winner of its ratio, with its
    interval; `tied` marks the winners that this cannot tell from it, and it if there are any. `known_person` is of
    whom it still knows most, `noise_floor` the largest gap of one reference to the others.
    """
    lines: list[dict[str, Any]] = []
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
            **quality(study, members), **_beside(study, method, keys, ratio),
        })  # fmt: skip
    table = pd.DataFrame(lines, columns=columns(study, WINNER_COLUMNS))
    table = table.sort_values(["ratio", "distance", "method"], ignore_index=True)
    for ratio in study.ratios:
        mine = table[table["ratio"] == ratio]
        usable = mine[~mine["broken"].astype(bool)].dropna(subset=["distance"])
        table = _with_ties(study, table, usable, ratio)
    return table.astype({"tied": bool})


def _beside(study: StudyResults, method: str, keys: Sequence[str], ratio: int) -> dict[str, Any]:
    """What a winner is beside the references on the test half."""
    against, found = comparison.bench(study, ratio), comparison.model(study, method, tuple(keys), ratio)
    if against is None or found is None:
        return {"tied": False}
    _, low, high = comparison.gap_of(found, against).interval()
    person, known = comparison.most_known(study, keys, ratio)
    members = [study.trials[key] for key in keys if key in study.trials]
    references = comparison.rows_of(study, study.yardsticks("reference", ratio))
    means = [mean_gap(rows, references, study.goal) for rows in comparison.rows_of(study, members)]
    return {
        "forget_gap_low": float(np.maximum(0.0, low)), "forget_gap_high": high,
        "mean_gap": math.fsum(means) / len(means), "tied": False, "known_person": person, "known": known,
        "noise_floor": max(comparison.floor(study, ratio), default=NAN),
    }  # fmt: skip


def _with_ties(study: StudyResults, table: pd.DataFrame, usable: pd.DataFrame, ratio: int) -> pd.DataFrame:
    """The table with how much farther than the nearest the usable winners of one ratio are."""
    if usable.empty:
        return table
    ranked = [
        (str(line["method"]), study.winners[line["method"], ratio], float(line.get("recovery", 0.0)))
        for _, line in usable.iterrows()
    ]
    table.loc[usable.index[0], ["farther", "tied"]] = (0.0, True)
    for at, found in zip(usable.index[1:], comparison.ties(study, ratio, ranked), strict=False):
        value, low, high = found.interval()
        table.loc[at, ["farther", "farther_low", "farther_high"]] = (value, low, high)
        table.loc[at, "tied"] = not low > 0  # without an interval nothing can be told apart
    if not table.loc[usable.index[1:], "tied"].any():
        table.loc[usable.index[0], "tied"] = False
    return table


def same_settings(study: StudyResults, key: str) -> tuple[str, ...]:
    """The trial and the others with the same settings, from other seeds, the study's own seed first."""
    one = study.trials[key]
    alike = [
        t for t in study.trials.values()
        if (t.method, t.ratio, t.start, t.hyperparameters) == (one.method, one.ratio, one.start, one.hyperparameters)
    ]  # fmt: skip
    return tuple(t.key for t in sorted(alike, key=lambda t: (t.key != key, t.seed)))


def quality(study: StudyResults, members: Sequence[TrialRecord]) -> dict[str, float | bool]:
    """`retained` and `broken` of the trials that stand for one model, on the test half, averaged over them."""
    usable = [objectives_of(study, trial.key, "report")[0]["utility"] for trial in members]
    utility = float(pd.Series(usable, dtype=float).mean())
    vanilla = study.yardsticks("vanilla", members[0].ratio) if members else []
    before, after = (_retain_accuracy(study, tuple(t.key for t in models)) for models in (vanilla, members))
    retained = after / before if before > 0 else NAN
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
    vanilla, references = (study.yardsticks(kind, trial.ratio) for kind in ("vanilla", "reference"))
    others = [t for t in references if t.key != key] or references  # a reference is compared with the others
    found = [study.scored(t.key, half) for t in (trial, *vanilla[:1], *others)]
    if not vanilla or not references or any(rows is None for rows in found):
        return nothing, f"the trial, vanilla or a reference has not been scored on the {HALVES[half]}"
    mine, before, *wanted = (rows for rows in found if rows is not None)
    try:
        values = objectives(mine, before, wanted, study.goal)
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
    own, control = (hit.rows(recovery.COLUMNS) for hit in hits)
    try:
        found = recovery.objective(own, control, half, utility=utility, keeps=study.attack_keeps)
    except ValueError as error:
        return NAN, str(error)
    return found, "the search attack measured nothing" if math.isnan(found) else ""


def _attack_state(study: StudyResults, key: str) -> str:
    """The state of a proposal that was scored but whose recovery is not known."""
    hit = study.attacks(key).get(search_attack(study))
    return "unfinished" if hit is None or hit.state == "unfinished" else "attack failed"


def with_keys(study: StudyResults, table: pd.DataFrame) -> pd.DataFrame:
    """A table of methods and ratios with a column `key`, if it has none: the trial that a line is about.

    Of a model with several seeds it is the first, of a search the winner; empty where there is no trial.
    """
    if "key" in table or not {"method", "ratio"} <= set(table):
        return table
    first = {
        (label, ratio): members[0].key for ratio in study.ratios for label, members in study.labelled(ratio) if members
    }
    pairs = zip(table["method"], table["ratio"], strict=True)
    return table.assign(key=pd.Series([first.get(pair, "") for pair in pairs], index=table.index, dtype=str))


def report_rows(study: StudyResults, members: Sequence[TrialRecord], name: str = "report") -> pd.DataFrame:
    """The rows of some trials together, with the `seed` of each: of the test half, or of a file of another name."""
    found = [(trial.seed, study.rows(trial.key, name)) for trial in members]
    parts = [rows.assign(seed=seed) for seed, rows in found if rows is not None]
    return pd.concat(parts, ignore_index=True) if parts else no_rows()


@lru_cache(maxsize=1024)
def _retain_accuracy(study: StudyResults, keys: tuple[str, ...]) -> float:
    rows = report_rows(study, [study.trials[key] for key in keys])
    chosen = rows[(rows["role"] == "retain") & (rows["task"] == "classification")]
    return math.fsum(chosen["score"]) / len(chosen) if len(chosen) else NAN


def no_rows() -> pd.DataFrame:
    """The columns of rows, without one."""
    return pd.DataFrame(columns=[*ROW_COLUMNS, "seed"])
