"""A study as tidy tables: trials, scores with intervals, winners, what tuning bought, counts and costs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache

import pandas as pd

from analysis import attacks, intervals, pareto
from analysis.folder import Study, Trial
from study.core.rows import ROW_COLUMNS
from study.core.terms import MODALITIES, ROLES, TASKS, Half
from study.metrics import recovery
from study.metrics.objectives import BROKEN, distance_to_ideal, objectives

OBJECTIVES = ["forgetting", "utility", "distance"]
TRIAL_COLUMNS = ["key", "method", "ratio", "seed", "kind", "state", "number", "default", "winner", "confirmation",
                 "front", *OBJECTIVES, "parameters", "unlearn_seconds", "score_seconds", "overhead_seconds",
                 "reason"]  # fmt: skip
SCORE_COLUMNS = ["method", "ratio", "role", "modality", "task", "measure", "mean", "low", "high", "people", "questions",
                 "seeds", "seed_sd"]  # fmt: skip
GATE_COLUMNS = ["ratio", "role", "modality", "vanilla", "reference", "gap", "gap_low", "gap_high", "vanilla_blind",
                "reference_blind", "people"]  # fmt: skip
BLIND_COLUMNS = ["method", "ratio", "role", "mean", "low", "high", "people", "questions"]
WINNER_COLUMNS = ["method", "ratio", "key", "parameters", "seeds", "seeds_planned", *OBJECTIVES,
                  *(f"select_{name}" for name in OBJECTIVES), "distance_min", "distance_max", "retained",
                  "broken"]  # fmt: skip
TUNING_COLUMNS = ["method", "ratio", "default_state",
                  *(f"{which}_{name}" for which in ("default", "winner") for name in OBJECTIVES), "gain"]  # fmt: skip
STATES = ["complete", "diverged", "failed", "unfinished"]
NAN = float("nan")


def search_attack(study: Study) -> str:
    """The key of the attack that every trial met, what came back being an objective; empty for a study without one."""
    return str((study.settings.get("robustness") or {}).get("key", ""))


def columns(study: Study, names: Sequence[str]) -> list[str]:
    """The columns of a table, with those of the recovery after those of the utility where it is an objective."""
    both = [(name, name.replace("utility", "recovery")) for name in names]
    return [
        one for name, third in both for one in ([name, third] if third != name and search_attack(study) else [name])
    ]


def trials(study: Study) -> pd.DataFrame:
    """One line for each trial, objectives on the select half. What could not be scored says why in `reason`.

    `number` is that of the first proposal that led to it (missing for confirmations, vanilla and reference).
    `front` is within the searched trials of the same method and ratio.
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
            "reason": trial.reason or problem,
        })  # fmt: skip
    table = pd.DataFrame(lines, columns=columns(study, TRIAL_COLUMNS)).astype({"number": "Int64"})
    searched = table[(table["kind"] == "method") & table["number"].notna()]
    table.loc[searched.index, "front"] = pareto.on_front(searched)
    return table.sort_values(["method", "ratio", "number", "seed", "key"], ignore_index=True)


def proposals(study: Study) -> pd.DataFrame:
    """One line for each proposal of the search with the state and objectives of its trial, and whether it is new."""
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


def scores(study: Study) -> pd.DataFrame:
    """Means on the report half with 95 % intervals over people, for vanilla, the reference and every winner.

    One line per method x ratio x role x modality x task x measure (`score` everywhere, `probability` of the right
    option for classification). `seed_sd` is the standard deviation of the means of the seeds.
    """
    lines = []
    for ratio in study.ratios:
        for label, members in study.labelled(ratio):
            rows = report_rows(study, members)
            for (role, modality, task), group in rows.groupby(["role", "modality", "task"]):
                place = {"method": label, "ratio": ratio, "role": role, "modality": modality, "task": task}
                measures = ["score", "probability"] if task == "classification" else ["score"]
                lines += [{**place, **_score(group, measure)} for measure in measures]
    table = pd.DataFrame(lines, columns=SCORE_COLUMNS)
    order = {name: place for place, name in enumerate([*ROLES, *MODALITIES, *TASKS])}
    return table.sort_values(
        ["ratio", "role", "modality", "task", "measure"], key=lambda c: c.map(lambda v: order.get(v, v)),
        kind="stable", ignore_index=True,
    )  # fmt: skip


def blind(study: Study) -> pd.DataFrame:
    """Accuracy of vanilla and the reference on image classification when every picture is grey, report half only."""
    lines = []
    for ratio in study.ratios:
        for kind in ("vanilla", "reference"):
            found = [study.rows(trial.key, "blind") for trial in study.yardsticks(kind, ratio)]
            rows = pd.concat([r[r["half"] == "report"] for r in found if r is not None] or [_no_rows()])
            for role, group in rows.groupby("role"):
                value = intervals.mean(intervals.by_person(group))
                size = {"people": group["person"].nunique(), "questions": group["question"].nunique()}
                lines.append({"method": kind, "ratio": ratio, "role": role, **value._asdict(), **size})
    return pd.DataFrame(lines, columns=BLIND_COLUMNS)


def gate(study: Study) -> pd.DataFrame:
    """Did vanilla memorise, and did the reference not? Accuracy of both on every set, report half.

    `gap` = vanilla - reference with its 95 % interval, paired by person; the blind columns repeat `blind`.
    """
    level = blind(study).set_index(["ratio", "role", "method"])["mean"]
    lines = []
    for ratio in study.ratios:
        both = [report_rows(study, study.yardsticks(kind, ratio)) for kind in ("vanilla", "reference")]
        for role, modality in ((role, modality) for role in ROLES for modality in MODALITIES):
            chosen = [rows[(rows["role"] == role) & (rows["modality"] == modality)] for rows in both]
            choices = [rows[rows["task"] == "classification"] for rows in chosen]
            people = pd.concat([intervals.by_person(rows) for rows in choices], axis=1).dropna()
            if people.empty:
                continue
            gap = intervals.bootstrap(people, lambda means: means[:, 0] - means[:, 1])
            grey = [level.get((ratio, role, kind), NAN) for kind in ("vanilla", "reference")]
            seen = grey if modality == "image_text" else [NAN, NAN]
            lines.append([ratio, role, modality, *people.mean(), *gap, *seen, len(people)])
    return pd.DataFrame(lines, columns=GATE_COLUMNS)


def winners(study: Study) -> pd.DataFrame:
    """One line for each winner: objectives on the report half (mean over seeds) beside those that selected it.

    `retained` is its retain accuracy as a part of vanilla's; `broken` marks a destroyed model (see `BROKEN`).
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


def quality(study: Study, members: Sequence[Trial]) -> dict[str, float | bool]:
    """`retained` and `broken` of the trials that stand for one model, on the report half, averaged over them."""
    usable = [objectives_of(study, trial.key, "report")[0]["utility"] for trial in members]
    utility = float(pd.Series(usable, dtype=float).mean())
    before = _retain_accuracy(study, study.yardsticks("vanilla", members[0].ratio)) if members else NAN
    retained = _retain_accuracy(study, members) / before if before > 0 else NAN
    return {"retained": retained, "broken": bool(utility < BROKEN or retained < BROKEN)}


def tuning(study: Study) -> pd.DataFrame:
    """What the search bought over the preset's default: both on the select half; `gain` is the distance saved."""
    table = trials(study)
    lines = []
    for (method, ratio), keys in study.winners.items():
        mine = table[(table["method"] == method) & (table["ratio"] == ratio)]
        best = mine[mine["key"] == keys[0]]
        default = mine[mine["default"]].sort_values("number").head(1)
        if best.empty or default.empty:
            continue
        line = {"method": method, "ratio": ratio, "default_state": default["state"].item()}
        for which, part in (("default", default), ("winner", best)):
            line |= {f"{which}_{name}": part[name].item() for name in columns(study, OBJECTIVES)}
        lines.append({**line, "gain": line["default_distance"] - line["winner_distance"]})
    return pd.DataFrame(lines, columns=columns(study, TUNING_COLUMNS))


def counts(study: Study) -> pd.DataFrame:
    """Proposals of each method and ratio by what became of them; the parts add up to `proposals`."""
    table = proposals(study)
    fate = table["state"].where(~table["duplicate"], "duplicate")
    known = [*STATES, "duplicate"]
    columns = known + sorted(set(fate) - set(known))
    found = pd.crosstab([table["method"], table["ratio"]], fate).reindex(columns=columns, fill_value=0)
    found.insert(0, "proposals", found.sum(axis=1))
    return found.rename_axis(columns=None).reset_index()


def costs(study: Study) -> pd.DataFrame:
    """Median seconds of the trials of each method; `overhead` is all but unlearning and scoring."""
    table = trials(study)
    spent = ["unlearn_seconds", "score_seconds", "overhead_seconds"]
    mine = table[table["kind"] == "method"]
    return mine.astype(dict.fromkeys(spent, float)).groupby("method")[spent].median().reset_index()


@lru_cache(maxsize=8192)
def objectives_of(study: Study, key: str, half: Half) -> tuple[dict[str, float], str]:
    """Objectives and distance of a trial on one half, or NaN for each that is missing and why it is."""
    trial = study.trials[key]
    nothing = dict.fromkeys(columns(study, OBJECTIVES), NAN)
    if trial.state != "complete":
        return nothing, ""
    bars = [study.yardsticks(kind, trial.ratio)[:1] for kind in ("vanilla", "reference")]
    found = [study.rows(t.key, half) for t in [trial, *(bar for group in bars for bar in group)]]
    if len(found) < 3 or any(rows is None for rows in found):
        return nothing, f"no {half} rows of the trial, vanilla or the reference"
    try:
        mine, vanilla, reference = (rows for rows in found if rows is not None)
        values = objectives(mine, vanilla, reference, study.goal)
    except ValueError as error:
        return nothing, str(error)
    problem = ""
    if search_attack(study):
        values["recovery"], problem = _recovery(study, trial, half, values["utility"])
    return {**values, "distance": distance_to_ideal(**values)}, problem


def _recovery(study: Study, trial: Trial, half: Half, utility: float) -> tuple[float, str]:
    """What the attack of the search got back of a trial, or NaN and why that is not known."""
    met = [trial, *study.yardsticks("reference", trial.ratio)[:1]]
    hits = [hit for t in met if (hit := study.attacks(t.key).get(search_attack(study)))]
    if failed := [hit.reason for hit in hits if hit.state == "failed"]:
        return NAN, f"the attack of the search failed: {failed[0]}"
    if len(hits) < 2 or any(hit.state == "unfinished" for hit in hits):
        return NAN, "the attack of the search has not been run"
    own, control = (hit.rows for hit in hits)
    try:
        found = recovery.objective(own, control, half, utility=utility, keeps=attacks.keeps(study))
    except ValueError as error:
        return NAN, str(error)
    return found, "the attack of the search measured nothing" if math.isnan(found) else ""


def _attack_state(study: Study, key: str) -> str:
    """What became of a proposal that was scored but whose recovery is not known."""
    hit = study.attacks(key).get(search_attack(study))
    return "unfinished" if hit is None or hit.state == "unfinished" else "attack failed"


def report_rows(study: Study, members: Sequence[Trial]) -> pd.DataFrame:
    """The report rows of some trials together, with the `seed` of each."""
    found = [(trial.seed, study.rows(trial.key, "report")) for trial in members]
    parts = [rows.assign(seed=seed) for seed, rows in found if rows is not None]
    return pd.concat(parts, ignore_index=True) if parts else _no_rows()


def _score(rows: pd.DataFrame, measure: str) -> dict[str, float | str | int]:
    value = intervals.mean(intervals.by_person(rows, measure))
    seeds = rows.groupby("seed")[measure].mean()
    return {
        "measure": measure, **value._asdict(), "people": rows["person"].nunique(),
        "questions": rows["question"].nunique(), "seeds": len(seeds), "seed_sd": float(seeds.std()),
    }  # fmt: skip


def _retain_accuracy(study: Study, members: Sequence[Trial]) -> float:
    rows = report_rows(study, members)
    chosen = rows[(rows["role"] == "retain") & (rows["task"] == "classification")]
    return math.fsum(chosen["score"]) / len(chosen) if len(chosen) else NAN


def _no_rows() -> pd.DataFrame:
    return pd.DataFrame(columns=[*ROW_COLUMNS, "seed"])
