"""The worst attack on each winner: selected on the validation half, reported on the test half.

Candidates are all attacks on a winner, those of the fixed suite and those of the attack search. They are ranked as the
search ranks them: by the gain above control in the mean probability of the right answer on what was held out, among
those that leave enough of the retain accuracy. What is reported is accuracy on the test half, with an interval over
people that is paired with the control, so selecting the largest of many does not bias the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from analysis.sections import _attack_suite, _recovery
from analysis.sections._recovery import HELD_OUT
from analysis.study_folder import Attack, StudyResults
from analysis.trials import quality
from study.core.records import TrialRecord
from study.metrics import recovery

TRIAL_COLUMNS = ["method", "ratio", "key", "trial", "search", "number", "duplicate", "attack", "settings", "state",
                 "reason", "select", "select_kept", "report", "kept"]  # fmt: skip
TOLD = ["attack", "settings", "select", "above_control", "above_control_low", "above_control_high", "before", "after",
        "control_after", "kept", "people"]  # fmt: skip
COUNTS = ("complete", "duplicates", "failed", "unfinished", "cut_short", "broke")
TABLE_COLUMNS = ["method", "ratio", "key", "proposals", "suite", *COUNTS, *TOLD, "vanilla_after", "weak_above_control",
                 *(f"any_{name}" for name in TOLD), "worst_3", "worst_3_attacks", "retained", "broken",
                 "verdict"]  # fmt: skip
MEAN_OF = 3
"""Worst attacks that are averaged, beside the single worst: a mean depends less on one lucky attack."""
WEAK = "gradient_ascent"
"""The method with which every worst attack is compared: its unlearning is known to be superficial."""


@lru_cache(maxsize=4)
def trials(study: StudyResults) -> pd.DataFrame:
    """One line for each attack on each winner: the trials of the attack search in order (1, 2, ...), then the suite.

    `select` and `report` are the gain in probability above control on each half, `kept` the fraction of the retain
    accuracy that is left. `reason` says why an attack failed, or why it ended early.
    """
    lines: list[dict[str, Any]] = []
    for (method, ratio), keys in study.winners.items():
        place = {"method": method, "ratio": ratio, "key": keys[0]}
        asked = study.attack_proposals.get(keys[0], [])
        seen: set[str] = set()
        for count, p in enumerate(asked, 1):
            mark = {"trial": count, "search": p.search, "number": p.number, "duplicate": p.attack in seen}
            lines.append({**place, **mark, **compared(study, keys[0], ratio, p.attack)})
            seen.add(p.attack)
        fixed = [key for key in _attack_suite.suite(study) if key in study.attacks(keys[0]) and key not in seen]
        lines += [{**place, "duplicate": False, **compared(study, keys[0], ratio, key)} for key in fixed]
    whole: dict[str, Any] = {"trial": "Int64", "number": "Int64", "duplicate": bool}
    floats = dict.fromkeys(["select", "select_kept", "report", "kept"], float)
    return pd.DataFrame(lines, columns=TRIAL_COLUMNS).astype({**whole, **floats})


@lru_cache(maxsize=4)
def table(study: StudyResults) -> pd.DataFrame:
    """One line for each winner that was attacked: the worst attack that leaves it usable (`any_...`: of all attacks).

    `worst_3` is the mean over the three worst of all attacks, selected on one half and reported on the other as well.
    """
    lines = []
    for (method, ratio, key), found in trials(study).groupby(["method", "ratio", "key"], sort=False):
        members = [study.trials[key]] if key in study.trials else []
        if not members:
            continue
        keeping, anything = chosen(found, study.attack_keeps), chosen(found, -math.inf)
        told = judged(study, members[0], keeping)
        of_all = told if keeping == anything else judged(study, members[0], anything)
        gains = pd.Series([_above(study, members[0], attack) for attack in _ranked(found).head(MEAN_OF)["attack"]])
        lines.append({
            **told, "method": method, "ratio": ratio, "key": key, **_counts(found, study.attack_keeps),
            **{f"any_{name}": of_all.get(name) for name in TOLD}, "worst_3": gains.mean(),
            "worst_3_attacks": len(gains), **quality(study, members), "verdict": _verdict(study, found, told),
        })  # fmt: skip
    frame = pd.DataFrame(lines, columns=TABLE_COLUMNS)
    texts = [f"{which}{name}" for which in ("", "any_") for name in ("attack", "settings")]
    numbers = [f"{which}{name}" for which in ("", "any_") for name in TOLD if name not in texts]
    frame = frame.astype(dict.fromkeys([*numbers, "vanilla_after", "weak_above_control", "worst_3"], float))
    frame[texts] = frame[texts].astype(object).fillna("")
    return frame.sort_values(["ratio", "above_control", "method"], ignore_index=True)


def chosen(found: pd.DataFrame, keeps: float) -> str | None:
    """The key of the attack on one winner with the largest gain on the validation half that leaves at least `keeps`."""
    ranked = _ranked(found)
    within = ranked[~(ranked["select_kept"] < keeps)]
    return str(within["attack"].iloc[0]) if len(within) else None


def judged(study: StudyResults, target: TrialRecord, attack: str | None) -> dict[str, Any]:
    """The numbers of one attack on a winner on the test half, with a verdict; empty without an attack."""
    hit = _attack_suite.finished(study, target.key, attack) if attack else None
    if hit is None:
        return dict.fromkeys([*TOLD, "vanilla_after", "weak_above_control", "verdict"], None) | {
            "above_control": math.nan
        }
    own = hit.rows
    mine, control = (
        _attack_suite.counted(own, study.goal),
        _rows(study, study.yardsticks("reference", target.ratio), hit),
    )
    vanilla = study.yardsticks("vanilla", target.ratio)
    ceiling = _rows(study, vanilla, hit)
    before = ceiling if ceiling is not None else _unattacked(study, vanilla, mine)
    weak = _rows(study, _weak(study, target), hit)
    line = {
        "method": target.label, "held_out": "both", "attack": hit.key, "settings": _attack_suite.names(study)[hit.key],
        **(_recovery.numbers(mine, control, before, HELD_OUT) or {}), "kept": _attack_suite.kept(own, "report"),
        "vanilla_after": math.nan if ceiling is None else float(_recovery.ends(ceiling, HELD_OUT)["after"].mean()),
        "weak_above_control": _gap(weak, control), **quality(study, [target]),
    }  # fmt: skip
    line["select"] = compared(study, target.key, target.ratio, hit.key)["select"]
    return {**line, "verdict": _recovery.verdict(pd.Series(line), study.attack_keeps)}


def budget(study: StudyResults) -> pd.DataFrame:
    """The largest recovery on the validation half so far, after each trial of the attack search against each winner.

    An attack that failed, under which the model collapsed, or that was tried before costs a trial and adds nothing.
    """
    found = trials(study)
    found = found[found["trial"].notna()].sort_values(["ratio", "method", "trial"])
    usable = ~(found["select_kept"] < study.attack_keeps)
    best = found["select"].where(usable).groupby([found["method"], found["ratio"]]).cummax()
    best = best.groupby([found["method"], found["ratio"]]).ffill()
    return found.assign(best=best)[["method", "ratio", "trial", "best"]].dropna().reset_index(drop=True)


def curves(study: StudyResults) -> pd.DataFrame:
    """Accuracy on all that was held out at every step of the worst attack on each winner, of it and of the control."""
    lines = []
    for _, line in table(study).iterrows():
        attack = line["attack"] or line["any_attack"]
        place = {
            "method": line["method"],
            "ratio": line["ratio"],
            "settings": _attack_suite.names(study).get(attack, ""),
        }
        control = study.yardsticks("reference", line["ratio"])[:1]
        for who, members in (("method", [study.trials[line["key"]]]), ("control", control)):
            hits = [hit for t in members if (hit := _attack_suite.finished(study, t.key, str(attack)))]
            for hit in hits:
                rows = _attack_suite.counted(hit.rows, study.goal)
                lines += [{**place, "who": who, **point} for point in _recovery.stepwise(rows, HELD_OUT)]
    return pd.DataFrame(lines, columns=["method", "ratio", "settings", "who", *_recovery.POINT])


@lru_cache(maxsize=8192)
def compared(study: StudyResults, target: str, ratio: int, attack: str) -> dict[str, Any]:
    """An attack on a trial beside that on the control of its ratio: its state and, if both ended, the recovery."""
    control = study.yardsticks("reference", ratio)[:1]
    both = [study.attacks(key).get(attack) for key in (target, *(t.key for t in control))]
    there = [hit for hit in both if hit is not None]
    line: dict[str, Any] = {
        "attack": attack,
        "settings": _attack_suite.names(study).get(attack, attack),
        "state": "unfinished",
        "reason": "",
    }
    failed = [hit.record.reason for hit in there if hit.state == "failed"]
    if failed:
        return {**line, "state": "failed", "reason": failed[0]}
    if len(there) < 2 or any(hit.state != "complete" for hit in there):
        return line
    own, other = (hit.rows for hit in there)
    line |= {"reason": there[0].record.reason, "kept": _attack_suite.kept(own, "report")}
    try:
        return {
            **line, "state": "complete", "select": recovery.above_control(own, other, "select"),
            "select_kept": _attack_suite.kept(own, "select"), "report": recovery.above_control(own, other, "report"),
        }  # fmt: skip
    except ValueError as error:  # nothing is held out, so nothing can be compared
        return {**line, "state": "failed", "reason": str(error)}


def _ranked(found: pd.DataFrame) -> pd.DataFrame:
    """The attacks on one winner that can be compared, each once, the worst first."""
    there = found[(found["state"] == "complete") & ~found["duplicate"]].dropna(subset=["select"])
    return there.sort_values(["select", "attack"], ascending=False)


def _counts(found: pd.DataFrame, keeps: float) -> dict[str, int]:
    """The outcomes of the attacks on one winner; the first four of `COUNTS` add up to `proposals` and `suite`."""
    new = found[~found["duplicate"]]
    states = {state: int((new["state"] == state).sum()) for state in ("complete", "failed", "unfinished")}
    done = new[new["state"] == "complete"]
    return {
        "proposals": int(found["trial"].notna().sum()), "suite": int(found["trial"].isna().sum()), **states,
        "duplicates": int(found["duplicate"].sum()), "cut_short": int((done["reason"] != "").sum()),
        "broke": int((done["select_kept"] < keeps).sum()),
    }  # fmt: skip


def _verdict(study: StudyResults, found: pd.DataFrame, told: dict[str, Any]) -> str:
    """The verdict on the worst attack that leaves the model usable, else why there is none."""
    if told["verdict"] is not None:
        return str(told["verdict"])
    if quality(study, [study.trials[found["key"].iloc[0]]])["broken"]:
        return "collapsed"
    return "collapsed under attack" if len(_ranked(found)) else "not attacked"


def _rows(study: StudyResults, members: Sequence[TrialRecord], hit: Attack) -> pd.DataFrame | None:
    """The rows that count of the same attack on another model."""
    same = [other for trial in members[:1] if (other := _attack_suite.finished(study, trial.key, hit.key))]
    return _attack_suite.counted(same[0].rows, study.goal) if same else None


def _weak(study: StudyResults, target: TrialRecord) -> list[TrialRecord]:
    found = [keys[0] for (m, r), keys in study.winners.items() if m.partition(":")[0] == WEAK and r == target.ratio]
    return [study.trials[key] for key in found if key in study.trials]


def _unattacked(study: StudyResults, vanilla: Sequence[TrialRecord], mine: pd.DataFrame) -> pd.DataFrame | None:
    """What vanilla knew of the questions of an attack that was not run on it."""
    rows = study.rows(vanilla[0].key, "report") if vanilla else None
    if rows is None:
        return None
    groups = mine.drop_duplicates("question").set_index("question")["held_out"]
    there = rows[rows["question"].isin(groups.index)]
    return there.assign(held_out=there["question"].map(groups))


def _above(study: StudyResults, target: TrialRecord, attack: str) -> float:
    hit = _attack_suite.finished(study, target.key, attack)
    control = study.yardsticks("reference", target.ratio)
    return _gap(_rows(study, [target], hit), _rows(study, control, hit)) if hit else math.nan


def _gap(rows: pd.DataFrame | None, control: pd.DataFrame | None) -> float:
    """The gain above control, averaged over the people that both have."""
    if rows is None or control is None:
        return math.nan
    rows, control = _recovery.as_long(rows, control)
    both = _recovery.ends(rows, HELD_OUT).join(_recovery.ends(control, HELD_OUT).add_suffix("_control")).dropna()
    return float((both["after"] - both["before"] - both["after_control"] + both["before_control"]).mean())
