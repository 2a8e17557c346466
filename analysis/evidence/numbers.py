"""All that the evidence on one winner says, as plain JSON: the page, the tables and the statement are made of it.

Nothing is computed here that the report computes: numbers come from the functions behind its tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis import naming
from analysis.evidence import claim as claims
from analysis.evidence.people import people
from analysis.sections import _attack_suite, _recovery, _worst_attack
from analysis.sections.provenance import origins
from analysis.study_folder import StudyResults
from analysis.trials import winners
from study.core import erasure
from study.core.hashing import Json
from study.core.plugins import check
from study.core.records import AttackRecord, to_json
from study.metrics.forget_gap import smallest_leak

VERSION = 1
"""Of the form of the record: raised when a field changes its meaning."""
QUALITY = ("forget_gap", "forget_gap_low", "forget_gap_high", "noise_floor", "utility", "retained", "broken",
           "mean_gap", "seeds", "distance")  # fmt: skip
LINE = ("attack", "settings", "verdict", "would_tell", "above_control", "above_control_low", "above_control_high",
        "before", "after", "control_after", "step", "kept", "people", "seeds", "flops", "precision")  # fmt: skip


class Unfinished(ValueError):
    """A study has not come far enough for evidence; `lacks` says what is still to be done, and names no folder."""

    def __init__(self, study: StudyResults, lacks: str) -> None:
        super().__init__(
            f"{study.root} is not finished, so there is no evidence yet. Still missing: {lacks}. Run the command of "
            "the study again"
        )
        self.lacks = lacks


def named(study: StudyResults) -> dict[str, tuple[str, int]]:
    """The winners by their names, METHOD@RATIO."""
    return {f"{method}@{ratio}": (method, ratio) for method, ratio in study.winners}


def numbers(study: StudyResults, name: str) -> Json:
    """The evidence on the winner with this name.

    Raises `ValueError` that names what there is if there is no such winner, and `Unfinished` that names the stage that
    lacks if the study has not come far enough.
    """
    _check_learned(study)
    check(f"winners of {study.root}", name, tuple(named(study)))
    method, ratio = named(study)[name]
    _check_finished(study, method, ratio)
    quality = _lines(winners(study), method, ratio).iloc[0]
    suite = _lines(_recovery.pooled_groups(study), method, ratio)
    worst = _lines(_worst_attack.table(study), method, ratio)
    told = worst.iloc[0] if len(worst) else None
    found = people(study, method, ratio)
    made = claims.claim(study, quality, told, suite, found)
    tried = _worst_attack.trials(study)
    tried = tried[tried["key"] == quality["key"]]
    limits = claims.not_claimed(study, ratio, len(found), tried["attack"].nunique())
    return _plain({
        "version": VERSION, "at": erasure.now(), "study": study.name, "winner": name, "method": method, "ratio": ratio,
        "claim": {**made._asdict(), "not_claimed": limits},
        "request": _request(study, method, ratio, sorted(found["person"])),
        "model": _model(study, method, ratio),
        "quality": {key: quality[key] for key in QUALITY},
        "margin": study.margin,
        "smallest_leak": smallest_leak(len(found)),
        "worst_attack": {} if told is None else _told(study, told),
        "attacks": [_told(study, line) for _, line in suite.iterrows()],
        "attack_search": {state: int((tried["trial"].notna() & (tried["state"] == state)).sum())
                          for state in ("complete", "failed", "unfinished")},
        "without_result": tried.loc[tried["state"] != "complete", ["settings", "state", "reason"]].to_dict("records"),
        "people": found.to_dict("records"),
        "settings": study.settings, "versions": study.record.get("versions") or {},
        "revision": study.record.get("git") or "", "computed_by": origins(study).to_dict("records"),
    })  # fmt: skip


def _lines(table: pd.DataFrame, method: str, ratio: int) -> pd.DataFrame:
    return table[(table["method"] == method) & (table["ratio"] == ratio)]


def _told(study: StudyResults, line: pd.Series[Any]) -> Json:
    """An attack on the winner: its numbers, what it is and whom it stands for."""
    if not line["attack"]:
        return {}
    record = _record(study, str(line["attack"]))
    threat = to_json(record.threat) if record.threat else None
    about = {"kind": _attack_suite.kinds(study)[line["attack"]], "all_settings": record.settings, "threat": threat}
    return {**{key: line[key] for key in LINE}, **about}


def _record(study: StudyResults, attack: str) -> AttackRecord:
    return next(met[attack].record for met in map(study.attacks, study.trials) if attack in met)


def _request(study: StudyResults, method: str, ratio: int, who: Sequence[str]) -> Json:
    """What was asked to be forgotten, and of whom; with sequential unlearning, the people of each request."""
    first = study.winners[method, ratio][0]
    turns = [list(map(list, turn.record.people)) for turn in study.sequences(first)]
    return {"goal": study.goal, "people": who, "attributes": list(study.forget_attributes), "in_turn": turns}


def _model(study: StudyResults, method: str, ratio: int) -> Json:
    members = [study.trials[key] for key in study.winners[method, ratio]]
    first = members[0]
    return {
        "name": naming.method(method), "keys": [t.key for t in members], "seeds": [t.seed for t in members],
        "hyperparameters": first.hyperparameters, "precision": study.precision(first),
        "instruction": first.instruction, "start": first.start.key,
        "references": [{"key": t.key, "seed": t.seed} for t in study.yardsticks("reference", ratio)],
    }  # fmt: skip


def _check_learned(study: StudyResults) -> None:
    lacks = [kind for kind in ("vanilla", "reference") if not any(t.label == kind for t in study.trials.values())]
    if lacks:
        raise Unfinished(study, f"learning: there is no {' and no '.join(lacks)}")
    if not study.winners:
        raise Unfinished(study, "the search and the race: no winner has been named")


def _check_finished(study: StudyResults, method: str, ratio: int) -> None:
    """Raise `Unfinished` that names the first stage that lacks for a winner."""
    keys = study.winners[method, ratio]
    references = [t.key for t in study.yardsticks("reference", ratio)]
    scored = [key for key in keys if study.rows(key, "report") is not None]
    if len(scored) < len(keys):
        raise Unfinished(study, f"confirmation: {len(scored)} of {len(keys)} seeds of {method} are scored")
    suite = _attack_suite.suite(study)
    lacks = [a for a in suite for key in (*keys, *references) if _state(study, key, a) == "unfinished"]
    if lacks or not suite:
        what = f"{len(lacks)} on {method} and the references" if lacks else "all of them"
        raise Unfinished(study, f"attacks: {what} are still to be run")
    asked = int(study.settings.get("attack_trials") or 0) * len(study.settings.get("searched_attacks") or ())
    tried = [p for p in study.attack_proposals.get(keys[0], ()) if _state(study, keys[0], p.attack) != "unfinished"]
    if len(tried) < asked:
        raise Unfinished(study, f"the attack search: {len(tried)} of {asked} trials against {method} have ended")


def _state(study: StudyResults, key: str, attack: str) -> str:
    met = study.attacks(key).get(attack)
    return met.state if met else "unfinished"


def _plain(value: Any) -> Json:
    """Numbers of pandas as those of JSON, which has no NaN and no infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if value is pd.NA else value
