"""Every trial on a Pareto front under the fixed suite of attacks, in a study with robustness as an objective.

A winner is one point of its front. Whoever prefers another point should know how robust that one is: its worst attack
is selected on the validation half and reported on the test half, as `_worst_attack` does for winners.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pandas as pd

from analysis import naming
from analysis.sections import Part, Section, _attack_suite, _recovery, _worst_attack
from analysis.study_folder import StudyResults
from analysis.tables import Table, two, whole, with_interval
from analysis.trials import objectives_of, quality, search_attack, trials

VALUES = ("forget_gap", "utility", "recovery", "distance")
NUMBERS = (
    "step",
    "last_step",
    "above_control",
    "above_control_low",
    "above_control_high",
    "before",
    "after",
    "control_after",
    "kept",
)
TOLD = ("attack", "settings", *NUMBERS)
COLUMNS = ["method", "ratio", "key", "winner", *VALUES, *(f"report_{name}" for name in VALUES), "attacks", "complete",
           *TOLD, "retained", "broken", "verdict"]  # fmt: skip


def parts(study: StudyResults) -> Iterator[Part]:
    """The one table."""
    yield front_table(study)


@lru_cache(maxsize=4)
def table(study: StudyResults) -> pd.DataFrame:
    """One line for each trial on the front of its method and ratio; none without robustness as an objective.

    Objectives on the validation half and, as `report_...`, on the test half. `attacks` counts those of the suite that
    were run on it, `complete` those that can be compared with the control; `attack` is the worst of them.
    """
    found = trials(study)
    lines = [_line(study, line) for _, line in found[found["front"]].iterrows()] if search_attack(study) else []
    attacked = [line for line in lines if "above_control" in line]
    rest = [line for line in lines if "above_control" not in line]
    shown = pd.concat([_recovery.judged(attacked, study), pd.DataFrame(rest)], ignore_index=True)
    return shown.reindex(columns=COLUMNS).astype(dict.fromkeys(NUMBERS, float))


def front_table(study: StudyResults) -> Table:
    """Every trial on a front under the fixed suite of attacks."""
    raw = table(study)
    mine = raw.sort_values(["ratio", "method", "distance"])
    shown = pd.DataFrame({
        "forget %": mine["ratio"], "method": mine["method"].map(naming.method),
        **{naming.words(name): mine[f"report_{name}"].map(two) for name in VALUES},
        "validation distance": mine["distance"].map(two),
        "worst attack": mine["settings"].fillna("none"),
        "above control": with_interval(mine, "above_control"),
        "step": mine["step"].map(whole),
        "before": mine["before"].map(two), "after": mine["after"].map(two), "kept": mine["kept"].map(two),
        "attacks": mine["complete"].astype(str) + " of " + mine["attacks"].astype(str), "verdict": mine["verdict"],
        "mark": mine["winner"].map({True: "winner", False: ""}), "key": mine["key"],
    })  # fmt: skip
    return Table(
        "front", "Whole Pareto fronts under the fixed suite",
        "Every trial on the Pareto front of its method, on the test half and with one seed; validation distance: its "
        "distance to the ideal point on the other half. The worst attack of the suite is selected by probability on "
        "the validation half, as is the step at which it is told, and reported on the test half. "
        f"{_worst_attack.ALLOWED} "
        "Attacks: how many of those run on it can be compared with the control. The key names the trial's folder.",
        raw, shown,
    )  # fmt: skip


def _line(study: StudyResults, trial: pd.Series) -> dict[str, Any]:
    target = study.trials[trial["key"]]
    tried = [key for key in _attack_suite.suite(study) if key in study.attacks(target.key)]
    found = [_worst_attack.compared(study, [target.key], target.ratio, key) for key in tried]
    met = pd.DataFrame(found, columns=["attack", "state", "models", "select", "select_low"]).assign(duplicate=False)
    reported, _ = objectives_of(study, target.key, "report")
    state = quality(study, [target])
    place = {
        **{name: trial[name] for name in ("method", "ratio", "key", "winner", *VALUES)},
        **{f"report_{name}": reported[name] for name in VALUES}, "attacks": len(met),
        "complete": int((met["state"] == "complete").sum()), **state,
    }  # fmt: skip
    line = _worst_attack.worst_of(study, target.label, [target], met)
    return {**(line or {"verdict": "collapsed" if state["broken"] else "not attacked"}), **place}


SECTION = Section("Whole Pareto fronts", 40, parts)
