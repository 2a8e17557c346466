"""Attacks of other kinds than the one that the search optimized, in a study with robustness as an objective.

Optimizing an audit can hide knowledge from that audit and from no other (arXiv 2608.11408).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pandas as pd

from analysis import naming
from analysis.sections import Part, Section, _attack_suite, _halfway, _recovery, _worst_attack
from analysis.study_folder import StudyResults
from analysis.tables import Table, two, with_interval
from analysis.trials import search_attack, winners

COLUMNS = ["method", "ratio", "key", "recovery", *_worst_attack.TOLD, "verdict"]
WARNING = (
    "Caution: methods were chosen by how little {} brought back. Optimizing an audit can hide knowledge from that "
    "audit alone (arXiv 2608.11408), so whether the winners forgot is for attacks of other kinds to say."
)


def parts(study: StudyResults) -> Iterator[Part]:
    """The warning, and the worst attack of another kind on each winner."""
    kind = optimized(study)
    if not kind:
        return
    raw = table(study)
    yield WARNING.format(naming.words(kind)) + ("" if len(raw) else f" {alone(study)}")
    yield other_table(raw, naming.words(kind))


def optimized(study: StudyResults) -> str:
    """The kind of the attack on every trial of the search; empty where there is none, or it never ran."""
    return _attack_suite.kinds(study).get(search_attack(study), "")


def alone(study: StudyResults) -> str:
    """The sentence on a study that met no attack of another kind; empty for any other."""
    kind = optimized(study)
    if not kind or len(table(study)):
        return ""
    return (
        f"No attack of another kind than {naming.words(kind)}, which the search optimized, was run on the winners, so "
        "their knowledge may only be hidden from it: add attacks with --attacks."
    )


@lru_cache(maxsize=4)
def table(study: StudyResults) -> pd.DataFrame:
    """One line for each winner that met an attack of another kind, with the worst of these.

    It is chosen and told as the worst of all is; `recovery` is the objective, under the optimized attack.
    """
    kind, lines = optimized(study), []
    every, chosen = _worst_attack.trials(study), winners(study)
    others = every[every["attack"].map(_attack_suite.kinds(study)) != kind] if kind else every[:0]
    for (method, ratio), keys in study.winners.items():
        members = [study.trials[key] for key in keys if key in study.trials]
        mine = others[others["key"] == keys[0]]
        if members and (line := _worst_attack.worst_of(study, method, members, mine)):
            goal = chosen.loc[(chosen["method"] == method) & (chosen["ratio"] == ratio), "recovery"]
            place: dict[str, Any] = {"method": method, "key": keys[0], "recovery": goal.item() if len(goal) else None}
            lines.append({**line, **place})
    return _recovery.judged(lines, study).reindex(columns=COLUMNS)


def other_table(raw: pd.DataFrame, kind: str) -> Table:
    """The worst attack of another kind on each winner."""
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method),
        f"recovery under {kind}": raw["recovery"].map(two), "worst other attack": raw["settings"],
        "verdict": raw["verdict"], "above control": with_interval(raw, "above_control"),
        "before": raw["before"].map(two), "after": raw["after"].map(two),
        "control after": raw["control_after"].map(two), **_halfway.steps_columns(raw),
    })  # fmt: skip
    return Table(
        "other_attacks", "Attacks of other kinds than the optimized one",
        f"Recovery under {kind} is the third objective of the search, on the test half. The worst of all other attacks "
        "on each winner is selected on the validation half and reported on the test half, with a 95 % interval over "
        f"people and seeds. {_worst_attack.ALLOWED}", raw, shown,
    )  # fmt: skip


SECTION = Section("Attacks of other kinds than the optimized one", 35, parts)
