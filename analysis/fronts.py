"""Every trial on a front under the fixed suite, in a study that searched for robustness, too.

A winner is one point of its front. Whoever prefers another one should know what comes back of that: its worst attack is
chosen on the half of the questions that selects and told on the other, as `analysis.worst_case` does for winners.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pandas as pd

from analysis import attacks, worst_case
from analysis.folder import Study
from analysis.table import objectives_of, quality, search_attack, trials

VALUES = ("forgetting", "utility", "recovery", "distance")
TOLD = ("attack", "settings", "above_control", "above_control_low", "above_control_high", "before", "after",
        "control_after", "kept")  # fmt: skip
COLUMNS = ["method", "ratio", "key", "winner", *VALUES, *(f"report_{name}" for name in VALUES), "attacks", "complete",
           *TOLD, "retained", "broken", "verdict"]  # fmt: skip


@lru_cache(maxsize=4)
def table(study: Study) -> pd.DataFrame:
    """One line for each trial on the front of its method and ratio; none without robustness as an objective.

    Objectives on the select half and, as `report_...`, on the other. `attacks` counts those of the suite that it met,
    `complete` those that can be compared with the control; `attack` is the worst of them that left a model.
    """
    found = trials(study)
    lines = [_line(study, line) for _, line in found[found["front"]].iterrows()] if search_attack(study) else []
    return pd.DataFrame(lines, columns=COLUMNS)


def _line(study: Study, trial: pd.Series) -> dict[str, Any]:
    target = study.trials[trial["key"]]
    tried = [key for key in attacks.suite(study) if key in study.attacks(target.key)]
    met = pd.DataFrame([worst_case.compared(study, target.key, target.ratio, key) for key in tried],
                       columns=["attack", "state", "select", "select_kept"]).assign(duplicate=False)  # fmt: skip
    worst = worst_case.judged(study, target, worst_case.chosen(met, attacks.keeps(study)))
    reported, _ = objectives_of(study, target.key, "report")
    complete = int((met["state"] == "complete").sum())
    state = quality(study, [target])
    missing = "broken by the attack" if complete else "not attacked"
    return {
        **{name: trial[name] for name in ("method", "ratio", "key", "winner", *VALUES)},
        **{f"report_{name}": reported[name] for name in VALUES}, "attacks": len(met), "complete": complete,
        **{name: worst[name] for name in TOLD}, **state,
        "verdict": worst["verdict"] or ("broken, not robust" if state["broken"] else missing),
    }  # fmt: skip
