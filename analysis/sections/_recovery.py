"""What comes back under attack, judged only on people and facts that the attacker was not given.

Accuracy is that of classification questions of the forget set in the modalities that were to be forgotten, averaged
within a person (over questions and seeds), then over people. Where the attack rows hold both halves, only the report
half counts. With `before` at attack step 0 and `after` at the last step:

- accuracy gain AG = after - before;
- gain above control = AG - AG of the reference under the same attack: the reference cannot remember, it can only
  learn, so what it gains is not recovery;
- normalised recovery = (after - before) / (vanilla before - before): 0 nothing came back, 1 all of it. Not defined
  where less than `SMALLEST_GAP` was forgotten.

Intervals are 95 % cluster bootstraps over people, paired between method, reference and vanilla.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from analysis import bootstrap
from analysis.bootstrap import MISSING, Interval, Values
from analysis.sections._attack_suite import attacked
from analysis.study_folder import StudyResults
from analysis.trials import quality

SMALLEST_GAP = 0.1
"""The least accuracy that must have been forgotten for a normalised recovery to mean anything."""

VERDICTS = {
    "came back": "the interval of the gain above control lies above 0, and accuracy rose and ends above the control's",
    "rebound from overshoot": "the gain lies above the control's, but only from below it up to it",
    "only the control fell": "the gain lies above the control's because the attack hurt the control; nothing came back",
    "held": f"the interval of the gain above control ends below {SMALLEST_GAP}",
    "inconclusive": "the interval is too wide to tell; score more people or seeds",
    "little was forgotten": f"less than {SMALLEST_GAP} accuracy below vanilla before the attack: nothing to recover",
    "broken, not robust": "the model is destroyed, so that nothing comes back says nothing",
    "broken by the attack": "the attack destroyed the model: it left too little of what the model knew of others",
    "given to the attacker": "trained on by the attacker: shows that the attack works, says nothing about memory",
    "no control": "the reference was not attacked in the same way",
    "too few people": "fewer than two people to resample",
}
"""What each verdict on a method means."""

NOTHING_TO_SEE = {"broken, not robust": "\u00d7", "broken by the attack": "\u2021", "little was forgotten": "\u25cb"}
"""Verdicts that make a gain meaningless, with the sign of each in a figure."""

GROUPS = ("person", "fact", "seen")
"""What the attacker was not given: the person, or the fact; `seen`: given both, so the attack must work there."""

NUMBERS = ("before", "after", "gain", "control_gain", "above_control", "recovery")
POINT = ("step", "mean", "low", "high", "people")
CURVE_COLUMNS = ["method", "ratio", "attack", "settings", "held_out", *POINT]
HELD_OUT = ("person", "fact")
NUMBER_COLUMNS = ["people", "questions", *(f"{name}{end}" for name in NUMBERS for end in ("", "_low", "_high")),
                  "control_after", "vanilla_before"]  # fmt: skip
RECOVERY_COLUMNS = ["method", "ratio", "attack", "settings", "held_out", *NUMBER_COLUMNS, "kept", "retained", "broken",
                    "verdict"]  # fmt: skip


def curves(study: StudyResults) -> pd.DataFrame:
    """Accuracy with interval at every attack step, for each attacked model and each of `GROUPS`."""
    lines = []
    for case in attacked(study):
        place = {"method": case.label, "ratio": case.ratio, "attack": case.attack, "settings": case.settings}
        for name in GROUPS:
            lines += [{**place, "held_out": name, **point} for point in stepwise(case.rows, [name])]
    return pd.DataFrame(lines, columns=CURVE_COLUMNS)


def stepwise(rows: pd.DataFrame, groups: Sequence[str]) -> list[dict[str, float]]:
    """Accuracy with interval at every attack step, on some groups of questions; the columns of `POINT`."""
    chosen = rows[rows["held_out"].isin(groups)]
    points = []
    for step, now in chosen.groupby("step"):
        people = bootstrap.by_person(now)
        points.append({"step": int(str(step)), **bootstrap.mean(people)._asdict(), "people": len(people)})
    return points


@lru_cache(maxsize=4)
def recovery(study: StudyResults) -> pd.DataFrame:
    """One line for each attacked model (vanilla and reference too), attack and group, with a verdict in words."""
    return _table(study, {name: (name,) for name in GROUPS})


@lru_cache(maxsize=4)
def pooled(study: StudyResults) -> pd.DataFrame:
    """Like `recovery`, with one line for all that was held out, people and facts together."""
    return _table(study, {"both": HELD_OUT})


def _table(study: StudyResults, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    cases = attacked(study)
    yardsticks = {(c.label, c.ratio, c.attack): c.rows for c in cases if c.label in ("vanilla", "reference")}
    lines = []
    for case in cases:
        control = None if case.label == "reference" else yardsticks.get(("reference", case.ratio, case.attack))
        ceiling = yardsticks.get(("vanilla", case.ratio, case.attack))
        state = {"kept": case.kept, **quality(study, case.members)}
        for name, group in groups.items():
            found = numbers(case.rows, control, ceiling, group)
            if found is not None:
                place = {"method": case.label, "ratio": case.ratio, "attack": case.attack, "settings": case.settings}
                lines.append({**place, "held_out": name, **found, **state})
    table = pd.DataFrame(lines, columns=RECOVERY_COLUMNS)
    return table.assign(verdict=[verdict(line, study.attack_keeps) for _, line in table.iterrows()])


def worst(raw: pd.DataFrame) -> pd.DataFrame:
    """Of each method at each ratio, the line of `recovery` with the largest gain above control on what was held out.

    One where the attack broke the model only if all did.
    """
    lines = raw[raw["held_out"].isin(HELD_OUT) & ~raw["method"].isin(("vanilla", "reference"))]
    lines = lines.assign(rank=lines["above_control"].fillna(-np.inf), usable=lines["verdict"] != "broken by the attack")
    order = lines.sort_values(["usable", "rank"], kind="stable")
    found = order.groupby(["ratio", "method"], sort=False).tail(1).sort_values(["ratio", "rank"])
    return found.drop(columns=["rank", "usable"])


def as_long(rows: pd.DataFrame, control: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both up to the last step that both were taken to: an attack that broke its model early was a shorter one."""
    last = min(rows["step"].max(), control["step"].max())
    return rows[rows["step"] <= last], control[control["step"] <= last]


def ends(rows: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Accuracy of each person `before` and `after` the attack, on some groups of questions."""
    rows = rows.loc[rows["held_out"].isin(groups), ["person", "score", "step"]]
    steps = rows["step"]
    before, after = rows[steps == steps.min()], rows[steps == steps.max()]
    return pd.DataFrame({"before": bootstrap.by_person(before), "after": bootstrap.by_person(after)})


def numbers(
    rows: pd.DataFrame, control: pd.DataFrame | None, ceiling: pd.DataFrame | None, groups: Sequence[str]
) -> dict[str, float | int] | None:
    """All numbers of one line; those that need a yardstick which was not attacked are NaN. None without rows."""
    mine = ends(rows, groups).dropna()
    if mine.empty:
        return None
    found = {
        "before": bootstrap.mean(mine["before"]),
        "after": bootstrap.mean(mine["after"]),
        "gain": bootstrap.interval(mine, lambda m: m[:, 1] - m[:, 0]),
        "control_gain": MISSING, "above_control": MISSING, "recovery": MISSING,
    }  # fmt: skip
    control_after = vanilla_before = float("nan")
    if control is not None:
        shown, control = as_long(rows, control)
        both = ends(shown, groups).join(ends(control, groups).add_suffix("_control")).dropna()
        found["control_gain"] = bootstrap.interval(both, lambda m: m[:, 3] - m[:, 2])
        found["above_control"] = bootstrap.interval(both, lambda m: (m[:, 1] - m[:, 0]) - (m[:, 3] - m[:, 2]))
        control_after = float(both["after_control"].mean())
    if ceiling is not None:
        both = mine.join(ends(ceiling, groups)[["before"]].add_suffix("_vanilla")).dropna()
        vanilla_before = float(both["before_vanilla"].mean())
        found["recovery"] = bootstrap.interval(both, _normalised)
    questions = rows.loc[rows["held_out"].isin(groups), "question"].nunique()
    levels = {"control_after": control_after, "vanilla_before": vanilla_before}
    return {"people": len(mine), "questions": questions, **_flat(found), **levels}


def _normalised(means: Values) -> Values:
    """(after - before) / (vanilla before - before) of columns before, after, vanilla before; NaN for a small gap."""
    gap = means[:, 2] - means[:, 0]
    safe = np.where(gap < SMALLEST_GAP, np.nan, gap)
    return np.asarray((means[:, 1] - means[:, 0]) / safe, dtype=float)


def _flat(found: dict[str, Interval]) -> dict[str, float]:
    return {
        f"{name}{end}": value
        for name, interval in found.items()
        for end, value in zip(("", "_low", "_high"), interval, strict=True)
    }


def verdict(line: pd.Series, keeps: float) -> str:
    """What one line of `recovery` says, in words. See `VERDICTS` for what each of them means."""
    if line["method"] in ("vanilla", "reference"):
        return "ceiling" if line["method"] == "vanilla" else "control"
    if line["broken"]:
        return "broken, not robust"
    if line["held_out"] == "seen":
        return "given to the attacker"
    if line["vanilla_before"] - line["before"] < SMALLEST_GAP:
        return "little was forgotten"
    if line["kept"] < keeps:
        return "broken by the attack"
    if np.isnan(line["above_control_low"]):
        return "no control" if np.isnan(line["above_control"]) else "too few people"
    if line["above_control_low"] > 0:
        if line["gain"] <= 0:
            return "only the control fell"
        return "came back" if line["after"] > line["control_after"] else "rebound from overshoot"
    return "held" if line["above_control_high"] < SMALLEST_GAP else "inconclusive"
