"""Every trial by itself: its settings to paste, scores, loss curve, attacks, cost and versions, to be unfolded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from os.path import relpath
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import naming
from analysis.live import anchor, loss_curve
from analysis.searched import spelled_method
from analysis.sections import Fold, Part, Section, _attack_suite, _recovery
from analysis.study_folder import StudyResults
from analysis.tables import Pairs, Pasted, Table, number, parameters, two, with_interval
from analysis.trials import OBJECTIVES, columns, objectives_of, report_rows, trials
from study.core.errors import Damaged
from study.core.records import TrialRecord


def parts(study: StudyResults) -> Iterator[Part]:
    """A fold for each trial: the baselines, then the methods in the order of their search."""
    found = trials(study)
    if len(found):
        yield "Every trial that has ended. Points of the trade-off and keys in tables lead here."
    baseline = found["kind"] != "method"
    for _, line in pd.concat([found[baseline], found[~baseline]]).iterrows():
        yield _fold(study, line)


def _fold(study: StudyResults, line: pd.Series) -> Fold:
    trial = study.trials[line["key"]]
    record = Path(relpath(study.folder.record(trial.key), study.folder.report)).as_posix()
    return Fold(anchor(trial.key), _title(line), list(_parts(study, trial)), record)


def _title(line: pd.Series) -> str:
    """`VKD at 20 %, trial 3 of the search, seed 0, winner: forget gap 0.05, utility 0.99 (8427fa83105f)`."""
    place = f"{naming.method(line['method'])} at {line['ratio']} %"
    number_of = [] if pd.isna(line["number"]) else [f"trial {line['number'] + 1} of the search"]
    marks = [mark for mark in ("default", "winner", "confirmation") if line[mark]]
    ended = f"forget gap {two(line['forget_gap'])}, utility {two(line['utility'])}"
    outcome = ended if line["state"] == "complete" else line["state"]
    seed = f"seed {line['seed']}"
    return f"{', '.join([place, *number_of, seed, *marks])}: {outcome} ({line['key']})"


def _parts(study: StudyResults, trial: TrialRecord) -> Iterator[Part]:
    if trial.kind == "method":
        yield Pasted(f"--methods {spelled_method(study, trial.method, trial.key)}")
    yield Table("", "Objectives", "", pd.DataFrame(), _objectives(study, trial))
    yield Table("", "Scores on the test half", "", pd.DataFrame(), _scores(study, trial))
    yield Table("", "On the way", "", pd.DataFrame(), _course(trial))
    yield from _losses(study, trial)
    yield Table("", "Attacks, over all seeds", "", pd.DataFrame(), _attacks(study, trial))
    yield Pairs("Settings, cost and versions", list(_about(study, trial)))


def _objectives(study: StudyResults, trial: TrialRecord) -> pd.DataFrame:
    names = columns(study, OBJECTIVES)
    found = {half: objectives_of(study, trial.key, half)[0] for half in naming.HALVES}
    lines = [{"half": naming.HALVES[half], **{naming.words(name): number(values[name]) for name in names}}
             for half, values in found.items() if not pd.isna(values["distance"])]  # fmt: skip
    return pd.DataFrame(lines)


def _scores(study: StudyResults, trial: TrialRecord) -> pd.DataFrame:
    """The mean score of each set and task."""
    rows = report_rows(study, [trial])
    means = rows.groupby(["role", "modality", "task"], sort=False)["score"].mean()
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for role, modality, task, value in means.reset_index().itertuples(index=False):
        place = lines.setdefault((role, modality), {"set": f"{role}, {naming.NAMES[modality]}"})
        place["ROUGE-L" if task == "generation" else f"{task} accuracy"] = two(value)
    return pd.DataFrame(lines.values()).fillna("")


def _course(trial: TrialRecord) -> pd.DataFrame:
    """What it scored at its rungs."""
    return pd.DataFrame([
        {"steps": rung.step, "forget gap": number(rung.forget_gap), "utility": number(rung.utility)}
        for rung in trial.rungs
    ])  # fmt: skip


def _losses(study: StudyResults, trial: TrialRecord) -> Iterator[Part]:
    """The loss of every step. No number of the report comes of it, so a damaged file does not stop the others."""
    try:
        losses = study.curve(trial.key)
    except Damaged:
        yield f"{study.folder.trial_curve(trial.key).name}, which held the loss of every step, is damaged."
        return
    if losses:
        yield loss_curve(losses, [rung.step for rung in trial.rungs])


def _attacks(study: StudyResults, trial: TrialRecord) -> pd.DataFrame:
    """The fixed suite on the model that the trial is a seed of, on what was held out; else the state of each attack."""
    found = _recovery.recovery(study)
    chosen = found["key"].map(lambda key: trial.key in _seeds(study, key))
    mine = found[chosen & (found["ratio"] == trial.ratio) & (found["held_out"] != "seen")]
    if len(mine):
        return pd.DataFrame({
            "attack": mine["settings"], "on": mine["held_out"].replace(naming.NAMES), "verdict": mine["verdict"],
            "above control": with_interval(mine, "above_control"), "before": mine["before"].map(two),
            "after": mine["after"].map(two), "step": mine["step"].map(lambda step: number(step, 0)),
        })  # fmt: skip
    met = study.attacks(trial.key)
    names = _attack_suite.names(study)
    return pd.DataFrame([{"attack": names[key], "state": attack.state} for key, attack in met.items()])


def _seeds(study: StudyResults, key: str) -> tuple[str, ...]:
    """The trials that stand for the same winner or baseline as its first one."""
    trial = study.trials[key]
    if trial.kind != "method":
        return tuple(t.key for t in study.yardsticks(trial.kind, trial.ratio))
    return next((keys for keys in study.winners.values() if keys[0] == key), (key,))


def _about(study: StudyResults, trial: TrialRecord) -> Iterator[tuple[str, str]]:
    if trial.reason:
        yield "reason", trial.reason
    yield "hyper-parameters", parameters(json.dumps(trial.hyperparameters, sort_keys=True)) or "none"
    yield "started from", f"{trial.start.kind} {trial.start.key}"
    cost = {
        "unlearning": (trial.cost.get("unlearn_seconds"), trial.cost.get("unlearn_flops")),
        "scoring": (trial.cost.get("score_seconds"), trial.cost.get("flops")),
    }
    for name, (seconds, flops) in cost.items():
        if seconds is not None:
            yield name, f"{seconds:.1f} s" + (f", {flops / 1e9:.2f} GFLOP" if flops is not None else "")
    if trial.origin is None:
        yield "versions", "those of the study"
        return
    origin = trial.origin
    yield "computed on", ", ".join(filter(None, [origin.cpu, origin.gpu, origin.dtype, f"{origin.threads} threads"]))
    yield "versions", ", ".join([f"revision {origin.revision}", *(f"{n} {v}" for n, v in origin.versions.items())])


SECTION = Section("Trial by trial", 105, parts)
