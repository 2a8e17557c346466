"""The worst attack on each winner: selected on the validation half, reported on the test half.

Candidates are all attacks on a winner, those of the fixed suite and those of the attack search. They are ranked by what
surely came back: the lower bound (95 %, one-sided, over people and seeds) of the gain above control in the mean
probability of the right answer on what was held out, of all seeds of the winner and all references that met the attack.
By the mean itself an attack with much noise would often come first for its luck alone. Those that all of them met come
first: the search looks with one seed and one reference, whose luck would be in no interval, and what it finds is then
run on all. How much the attack leaves of the model makes no difference: whoever extracts facts does not need the rest.
Each attack counts at the step where the attacker stops (`study.metrics.recovery`), which the validation half chooses,
too. What is then reported comes from the other half, whose questions ask for other facts, and the verdict allows for
the number of attacks, since people and seeds are the same. Everything that speaks of the worst attack (terminal,
conclusion, table, figure) reads it here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pandas as pd

from analysis.sections import _attack_suite, _recovery
from analysis.sections._attack_suite import Attacked, case_of, levels_of
from analysis.sections._levels import above_control, levels
from analysis.sections._recovery import ABOUT_COLUMNS, HELD_OUT, STEP_COLUMNS, Line
from analysis.study_folder import StudyResults
from analysis.trials import quality
from study.core.records import TrialRecord
from study.core.terms import HALVES
from study.metrics import recovery

TRIAL_COLUMNS = ["method", "ratio", "key", "trial", "search", "number", "duplicate", "attack", "settings", "state",
                 "reason", "models", "step", "select", "select_low", "select_kept", "report", "kept", "flops",
                 "control_flops"]  # fmt: skip
TOLD = ["attack", "settings", *STEP_COLUMNS, "select", "tried", "above_control", "above_control_low",
        "above_control_high", "before", "after", "attack_gain", "control_after", "kept", "control_kept",
        *ABOUT_COLUMNS, "people", "seeds"]  # fmt: skip
COUNTS = ("complete", "duplicates", "failed", "unfinished", "cut_short", "broke")
TABLE_COLUMNS = ["method", "ratio", "key", "proposals", "suite", *COUNTS, *TOLD, "vanilla_after", "weak_above_control",
                 "worst_3", "worst_3_attacks", "retained", "broken", "verdict", "would_tell"]  # fmt: skip
MEAN_OF = 3
"""Worst attacks whose mean is shown beside the worst: one may be luck."""
ALLOWED = "Interval and verdict allow for the choice among so many attacks (Bonferroni)."
"""The sentence of every table of worst attacks."""
WEAK = "gradient_ascent"
"""The method on which every worst attack is run as well: its unlearning is known to be superficial."""


@lru_cache(maxsize=4)
def trials(study: StudyResults) -> pd.DataFrame:
    """One line for each attack on each winner: the trials of the attack search in order (`trial` 1, 2, ...), then the
    suite.

    `select` and `report` are the gain in probability above control on each half, `kept` is the fraction of the retain
    accuracy that is left, all at `step`. `models` counts the seeds and references that met the attack. `flops` is what
    the whole attack cost, `control_flops` what it cost on the references. `reason` says why an attack failed, or why it
    ended early.
    """
    lines: list[dict[str, Any]] = []
    for (method, ratio), keys in study.winners.items():
        place = {"method": method, "ratio": ratio, "key": keys[0]}
        asked = study.attack_proposals.get(keys[0], [])
        seen: set[str] = set()
        for count, p in enumerate(asked, 1):
            mark = {"trial": count, "search": p.search, "number": p.number, "duplicate": p.attack in seen}
            lines.append({**place, **mark, **compared(study, keys, ratio, p.attack)})
            seen.add(p.attack)
        fixed = [key for key in _attack_suite.suite(study) if key in study.attacks(keys[0]) and key not in seen]
        lines += [{**place, "duplicate": False, **compared(study, keys, ratio, key)} for key in fixed]
    whole: dict[str, Any] = {"trial": "Int64", "number": "Int64", "step": "Int64", "models": "Int64",
                             "duplicate": bool}  # fmt: skip
    floats = dict.fromkeys(["select", "select_low", "select_kept", "report", "kept", "flops", "control_flops"], float)
    return pd.DataFrame(lines, columns=TRIAL_COLUMNS).astype({**whole, **floats})


@lru_cache(maxsize=4)
def table(study: StudyResults) -> pd.DataFrame:
    """One line for each winner that was attacked, with its worst attack; all verdicts are given together.

    `worst_3` is the mean over the three worst attacks, selected and reported in the same way.
    """
    lines: list[dict[str, Any]] = []
    every = trials(study)
    for (method, ratio), keys in study.winners.items():
        found, members = every[every["key"] == keys[0]], [study.trials[k] for k in keys if k in study.trials]
        if found.empty or not members or members[0].key != keys[0]:
            continue
        line = worst_of(study, method, members, found)
        extra = {
            "method": method,
            "ratio": ratio,
            "key": keys[0],
            "settings": "",
            "attack": "",
            **_counts(study, found),
        }
        worst = _ranked(found)["report"].head(MEAN_OF)
        lines.append({**extra, **(line or {}), "worst_3": worst.mean(), "worst_3_attacks": len(worst),
                      **quality(study, members)})  # fmt: skip
    frame = pd.concat([_judged(study, lines), pd.DataFrame(columns=TABLE_COLUMNS)])[TABLE_COLUMNS]
    numbers = [name for name in TOLD if name not in ("attack", "settings", "precision")]
    frame = frame.astype(dict.fromkeys([*numbers, "vanilla_after", "weak_above_control", "worst_3"], float))
    return frame.sort_values(["ratio", "above_control", "method"], ignore_index=True)


def _judged(study: StudyResults, lines: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The lines with their verdicts; a winner without an attack that can be compared has none but `not attacked`."""
    there = [line for line in lines if "above_control" in line]
    rest = [{**line, "verdict": "not attacked", "would_tell": ""} for line in lines if "above_control" not in line]
    return pd.concat([_recovery.judged(there, study), pd.DataFrame(rest)], ignore_index=True)


def worst_of(
    study: StudyResults, label: str, members: Sequence[TrialRecord], found: pd.DataFrame
) -> dict[str, Any] | None:
    """The numbers of the worst of the attacks `found` on the test half, still to be judged; none if none compares.

    `tried` is the number of attacks that it was chosen from, on the validation half.
    """
    ranked = _ranked(found)
    line = _compared_in_full(study, label, members, str(ranked["attack"].iloc[0])) if len(ranked) else None
    return line and {**line, "tried": len(ranked)}


def _compared_in_full(
    study: StudyResults, label: str, members: Sequence[TrialRecord], attack: str
) -> dict[str, Any] | None:
    case = case_of(study, label, members, attack)
    if case is None:
        return None
    references, vanilla = (study.yardsticks(kind, case.ratio) for kind in ("reference", "vanilla"))
    control, ceiling = (case_of(study, name, found, attack) for name, found in
                        (("reference", references), ("vanilla", vanilla)))  # fmt: skip
    known = ceiling or _unattacked(study, vanilla, case)
    line: Line | None = _recovery.compared(study, case, control, known, HELD_OUT)
    if line is None:
        return None
    weak = case_of(study, WEAK, _weak(study, case.ratio), attack)
    beside = _recovery.compared(study, weak, control, known, HELD_OUT) if weak and control else None
    return {
        **line, "held_out": "both", "select": compared(study, [t.key for t in members], case.ratio, attack)["select"],
        "vanilla_after": _recovery.accuracy_at(ceiling, HELD_OUT, line["step"]) if ceiling else math.nan,
        "weak_above_control": beside["above_control"].value if beside else math.nan,
    }  # fmt: skip


def budget(study: StudyResults) -> pd.DataFrame:
    """The largest recovery on the validation half so far, after each trial of the attack search on each winner.

    An attack that failed or that was tried before costs a trial and adds nothing.
    """
    found = trials(study)
    found = found[found["trial"].notna()].sort_values(["ratio", "method", "trial"])
    best = found["select"].groupby([found["method"], found["ratio"]]).cummax()
    best = best.groupby([found["method"], found["ratio"]]).ffill()
    return found.assign(best=best)[["method", "ratio", "trial", "best"]].dropna().reset_index(drop=True)


def curves(study: StudyResults) -> pd.DataFrame:
    """Accuracy on all that was held out at every step of the worst attack on each winner, of it and of the control.

    `told` marks the step at which the attacker stops. Of an attack whose stages are ways of their own it is the only
    one beside the level before.
    """
    lines = []
    for _, line in table(study).iterrows():
        place = {
            "method": line["method"],
            "ratio": line["ratio"],
            "settings": _attack_suite.names(study).get(line["attack"], ""),
        }
        members = [study.trials[key] for key in study.winners[line["method"], line["ratio"]] if key in study.trials]
        for who, models in (("method", members), ("control", study.yardsticks("reference", line["ratio"]))):
            if line["attack"] and (case := case_of(study, who, models, line["attack"])):
                for point in _recovery.stepwise(case, HELD_OUT):
                    if case.goes_on or point["step"] in (0, line["step"]):
                        lines.append({**place, "who": who, **point, "told": point["step"] == line["step"]})
    return pd.DataFrame(lines, columns=["method", "ratio", "settings", "who", *_recovery.POINT, "told"])


def compared(study: StudyResults, keys: Sequence[str], ratio: int, attack: str) -> dict[str, Any]:
    """An attack on the seeds of a winner beside that on the references of its ratio: its state and the recovery."""
    return _compared(study, tuple(keys), ratio, attack)


@lru_cache(maxsize=8192)
def _compared(study: StudyResults, keys: tuple[str, ...], ratio: int, attack: str) -> dict[str, Any]:
    first, references = study.attacks(keys[0]).get(attack), study.yardsticks("reference", ratio)
    members = [study.trials[key] for key in keys if key in study.trials]
    own = case_of(study, members[0].label, members, attack) if members else None
    control = case_of(study, "reference", references, attack)
    line: dict[str, Any] = {
        "attack": attack,
        "settings": _attack_suite.names(study).get(attack, attack),
        "state": "unfinished",
        "reason": "",
    }
    controls = [] if control else [study.attacks(t.key).get(attack) for t in references]
    failed = [hit for hit in (first, *controls) if hit is not None and hit.state == "failed"]
    if failed:
        return {**line, "state": "failed", "reason": failed[0].record.reason}
    if first is None or first.state != "complete" or own is None or control is None:
        return line
    step = _attack_suite.stop(own, control)
    select, report = (_attack_suite.kept(own, half, step) for half in HALVES)
    line |= {"reason": first.record.reason, "models": len(own.members) + len(control.members), "kept": report,
             "select_kept": select, "step": step, "flops": own.flops, "control_flops": control.flops}  # fmt: skip
    if not all(len(part.select) and levels_of(part, HELD_OUT) for part in (own, control)):
        return {**line, "state": "failed", "reason": recovery.GIVEN}
    select, report = (
        math.nan if step is None else float(_attack_suite.above(own, control, half)[step]) for half in HALVES
    )
    return {**line, "state": "complete", "select": select, "select_low": _surely(own, control, step), "report": report}


def _surely(case: Attacked, control: Attacked, step: int | None) -> float:
    """The lower bound (95 %, one-sided) of the gain above control on the validation half; -inf where none is known."""
    own, beside = (levels(part.select, HELD_OUT) for part in (case, control))
    if own is None or beside is None:
        return -math.inf
    mine, other = (part.ends(step, own.judged) for part in (own, beside))
    found = above_control(mine, other, ("seed", "seed of a reference"))
    return found.interval(0.90).low if found.known else -math.inf


def _ranked(found: pd.DataFrame) -> pd.DataFrame:
    """The attacks on one winner that can be compared, each once, the worst first of those that the most models met.

    The worst is the one that surely recovers most, by its lower bound: the largest mean of many is often that of an
    attack whose outcome is left to chance.
    """
    there = found[(found["state"] == "complete") & ~found["duplicate"]].dropna(subset=["select"])
    return there.sort_values(["models", "select_low", "select", "attack"], ascending=False)


def _counts(study: StudyResults, found: pd.DataFrame) -> dict[str, int]:
    """The outcomes of the attacks on one winner; the first four of `COUNTS` add up to proposals and suite."""
    new = found[~found["duplicate"]]
    states = {state: int((new["state"] == state).sum()) for state in ("complete", "failed", "unfinished")}
    done = new[new["state"] == "complete"]
    return {
        "proposals": int(found["trial"].notna().sum()), "suite": int(found["trial"].isna().sum()), **states,
        "duplicates": int(found["duplicate"].sum()), "cut_short": int((done["reason"] != "").sum()),
        "broke": int((done["select_kept"] < study.attack_keeps).sum()),
    }  # fmt: skip


def _weak(study: StudyResults, ratio: int) -> list[TrialRecord]:
    found = [keys for (m, r), keys in study.winners.items() if m.partition(":")[0] == WEAK and r == ratio]
    return [study.trials[key] for keys in found for key in keys if key in study.trials]


def _unattacked(study: StudyResults, vanilla: Sequence[TrialRecord], case: Attacked) -> Attacked | None:
    """What vanilla knew of the questions of an attack that it did not meet; none of those that are replied to freely,
    whose rows have another score."""
    rows = study.rows(vanilla[0].key, "report") if vanilla else None
    if rows is None:
        return None
    held_out = case.rows.drop_duplicates("question").set_index("question")["held_out"]
    asked = rows[rows["question"].isin(held_out.index) & (rows["task"] == "classification")]
    if asked.empty:
        return None
    asked = asked.assign(held_out=asked["question"].map(held_out), step=0, seed=vanilla[0].seed)
    return replace(case, label="vanilla", members=tuple(vanilla), rows=asked)
