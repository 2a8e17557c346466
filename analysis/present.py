"""Tables as people read them: what the report prints, LaTeX sets and the terminal shows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis import general_utility, metric_check, metric_tables, present_attacks, robustness, table, warm_start, words
from analysis.cells import NOTHING, Table, interval, number, parameters, with_interval
from analysis.folder import Study
from analysis.words import NAMES
from study.core.terms import MODALITIES, ROLES, TASKS
from study.metrics.objectives import BROKEN


def winners(study: Study, raw: pd.DataFrame) -> Table:
    """The winners on the report half, with doing nothing (vanilla) and the reference beside them."""
    lines = []
    for ratio in study.ratios:
        lines += [_yardstick(study, kind, ratio) for kind in ("vanilla", "reference")]
        lines += [_winner(line) for _, line in raw[raw["ratio"] == ratio].iterrows()]
    return Table(
        "winners", "On the report half",
        "Mean over seeds. Distance is that to the ideal, in brackets the least and greatest of the seeds; beside it "
        "the distance on the select half that made the trial win. Retain kept: retain accuracy as a part of vanilla's. "
        f"Broken: this or the utility is below {BROKEN}.{_third(study)}", raw,
        pd.DataFrame([line for line in lines if line]),
    )  # fmt: skip


def hyperparameters(raw: pd.DataFrame) -> Table:
    """The hyper-parameters of the winners."""
    columns = ["ratio", "method", "parameters", "key"]
    shown = _plain(raw[columns].assign(parameters=raw["parameters"].map(parameters)))
    return Table("hyperparameters", "Hyper-parameters of the winners", "The key names the trial's folder.",
                 raw[columns], shown)  # fmt: skip


def worst(raw: pd.DataFrame) -> pd.DataFrame:
    """The attack that got most back of each winner, for the terminal."""
    lines = robustness.worst(raw)
    return pd.DataFrame(
        {
            "forget %": lines["ratio"],
            "method": lines["method"].map(words.method),
            "worst attack": lines["settings"].str.split(",").str[0],
            "on": lines["held_out"].replace(NAMES),
            "before": lines["before"].map(number),
            "after": lines["after"].map(number),
            "control after": lines["control_after"].map(number),
            "verdict": lines["verdict"],
        }
    )


def gate(study: Study) -> Table:
    """Whether there was anything to forget."""
    raw = table.gate(study)
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "questions": raw["role"] + " " + raw["modality"].replace(NAMES),
        **{name: raw[name].map(number) for name in ("vanilla", "reference")},
        "gap": with_interval(raw, "gap"), "vanilla blind": raw["vanilla_blind"].map(number),
        "reference blind": raw["reference_blind"].map(number), "people": raw["people"],
    })  # fmt: skip
    return Table(
        "gate", "Gate: was there anything to forget?",
        "Multiple-choice accuracy on the report half. The gap must be clear on what is to be forgotten and small on "
        "the retain set. Blind: the same image questions with grey pictures, so what is known without looking.",
        raw, shown,
    )  # fmt: skip


def scores(raw: pd.DataFrame, task: str, measure: str) -> Table:
    """Scores of one task, one column for each role and modality."""
    mine = raw[(raw["task"] == task) & (raw["measure"] == measure)]
    places = [(role, modality) for role in ROLES for modality in MODALITIES]
    lines = []
    for (ratio, method), group in mine.groupby(["ratio", "method"], sort=False):
        line = {"forget %": ratio, "method": words.method(method)}
        for role, modality in places:
            cell = group[(group["role"] == role) & (group["modality"] == modality)]
            if not cell.empty:
                line[f"{role} {NAMES.get(modality, modality)}"] = with_interval(cell, "mean", bare=True).item()
        lines.append(line)
    shown = pd.DataFrame(lines).fillna(NOTHING)
    what = {"generation": "ROUGE-L", "cloze": "accuracy"}.get(task, "accuracy")
    what = "probability of the right option" if measure == "probability" else what
    note = "Report half, mean over people and its 95 % interval."
    return Table(f"{task}_{measure}", f"{task.capitalize()}: {what}", note, mine, shown)


def tuning(study: Study) -> Table:
    """What the search bought over the preset's default."""
    raw = table.tuning(study)
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(words.method), "default": raw["default_state"],
        **{name.replace("_", " "): raw[name].map(number) for name in table.columns(study, table.TUNING_COLUMNS)[3:]},
    })  # fmt: skip
    return Table(
        "tuning", "What tuning bought",
        "The winner beside the preset's default, both on the select half with one seed: a little flattering for "
        "the winner, because it was chosen on these questions. Gain: distance to the ideal saved.", raw, shown,
    )  # fmt: skip


def ran(study: Study) -> list[Table]:
    """What became of the proposals, what trials cost, and why some did not end."""
    counts, costs, trials = table.counts(study), table.costs(study), table.trials(study)
    problems = trials.loc[trials["reason"] != "", ["key", "method", "ratio", "seed", "state", "reason", "parameters"]]
    seconds = costs.rename(columns=lambda name: name.replace("_seconds", " (s)"))
    return [
        Table("counts", "Proposals", "The columns after proposals add up to it.", counts,
              _plain(counts)),
        Table("costs", "Median cost of a trial", "Overhead: all the time of a trial beyond unlearning and scoring.",
              costs, _plain(seconds.map(lambda v: number(v, 2) if isinstance(v, float) else v))),
        Table("problems", "Trials without a result", "Failed, diverged or not scorable, with the reason.", problems,
              _plain(problems.assign(parameters=problems["parameters"].map(parameters)))),
    ]  # fmt: skip


def every(study: Study, won: pd.DataFrame, recovered: pd.DataFrame) -> dict[str, Table]:
    """All tables of the report by their name, from the winners and recoveries already computed."""
    scored = table.scores(study)
    measures = [("classification", "score"), ("classification", "probability")]
    measures += [(task, "score") for task in TASKS if task != "classification"]
    found = [winners(study, won), hyperparameters(won), gate(study), tuning(study), *ran(study)]
    found += [present_attacks.recovery(recovered), present_attacks.worst_case_attack(study)]
    found += [
        present_attacks.attack_counts(study),
        present_attacks.attack_trials(study),
        present_attacks.front(study),
        present_attacks.in_turn(study),
    ]
    found += [scores(scored, task, measure) for task, measure in measures]
    found += warm_start.every(study)
    found += metric_tables.every(study)
    found.append(metric_check.table(study))
    found += general_utility.every(study)
    return {entry.name: entry for entry in found}


def _third(study: Study) -> str:
    """What to say of the third objective, where there is one."""
    if not table.search_attack(study):
        return ""
    return (
        " Recovery: what the attack of the search gets back above control, in probability of the right option; 0 if "
        "that is no more than a newcomer learns, 1 for a model that is destroyed before or by it."
    )


def _winner(line: pd.Series) -> dict[str, Any]:
    return {
        "forget %": line["ratio"], "method": words.method(line["method"]), "forgetting": number(line["forgetting"]),
        "utility": number(line["utility"]), **({"recovery": number(line["recovery"])} if "recovery" in line else {}),
        "distance": interval(line["distance"], line["distance_min"], line["distance_max"]),
        "when selected": number(line["select_distance"]), "retain kept": number(line["retained"]),
        "seeds": f"{line['seeds']} of {line['seeds_planned']}", "mark": "broken" if line["broken"] else "",
    }  # fmt: skip


def _yardstick(study: Study, kind: str, ratio: int) -> dict[str, Any]:
    """The line of vanilla or the reference among the winners; empty where there is none."""
    found = study.yardsticks("vanilla" if kind == "vanilla" else "reference", ratio)
    if not found:
        return {}
    values, _ = table.objectives_of(study, found[0].key, "report")
    chosen, _ = table.objectives_of(study, found[0].key, "select")
    return {
        "forget %": ratio, "method": kind, "forgetting": number(values["forgetting"]),
        "utility": number(values["utility"]),
        **({"recovery": number(values["recovery"])} if "recovery" in values else {}),
        "distance": number(values["distance"], 2),
        "when selected": number(chosen["distance"]),
        "retain kept": number(float(table.quality(study, found[:1])["retained"])), "seeds": "", "mark": "yardstick",
    }  # fmt: skip


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(method=frame["method"].map(words.method)).rename(columns={"ratio": "forget %"})
