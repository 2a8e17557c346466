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

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import intervals
from analysis.folder import Study, Trial
from analysis.intervals import MISSING, Interval, Values
from analysis.table import quality
from study.objectives import forget_groups
from study.questions import Goal

SMALLEST_GAP = 0.1
"""The least accuracy that must have been forgotten for a normalised recovery to mean anything."""

VERDICTS = {
    "came back": "the interval of the gain above control lies above 0, and accuracy ends above the control's",
    "rebound from overshoot": "the gain lies above the control's, but only from below it up to it",
    "held": f"the interval of the gain above control ends below {SMALLEST_GAP}",
    "inconclusive": "the interval is too wide to tell; score more people or seeds",
    "little was forgotten": f"less than {SMALLEST_GAP} accuracy below vanilla before the attack: nothing to recover",
    "broken, not robust": "the model is destroyed, so that nothing comes back says nothing",
    "given to the attacker": "trained on by the attacker: shows that the attack works, says nothing about memory",
    "no control": "the reference was not attacked in the same way",
    "too few people": "fewer than two people to resample",
}
"""What each verdict on a method means."""

GROUPS = ("person", "fact", "seen")
"""What the attacker was not given: the person, or the fact; `seen`: given both, so the attack must work there."""

NUMBERS = ("before", "after", "gain", "control_gain", "above_control", "recovery")
CURVE_COLUMNS = ["method", "ratio", "attack", "settings", "held_out", "step", "mean", "low", "high", "people"]
RECOVERY_COLUMNS = ["method", "ratio", "attack", "settings", "held_out", "people", "questions",
                    *(f"{name}{end}" for name in NUMBERS for end in ("", "_low", "_high")), "control_after",
                    "vanilla_before", "retained", "broken", "verdict"]  # fmt: skip


class Attacked(NamedTuple):
    """The rows of one attack on all trials (seeds) that stand for one model."""

    label: str
    ratio: int
    attack: str
    settings: str
    members: tuple[Trial, ...]
    rows: pd.DataFrame


def curves(study: Study) -> pd.DataFrame:
    """Accuracy with interval at every attack step, for each attacked model and each of `GROUPS`."""
    lines = []
    for case in attacked(study):
        for held_out in GROUPS:
            chosen = case.rows[case.rows["held_out"] == held_out]
            for step, rows in chosen.groupby("step"):
                people = intervals.by_person(rows)
                place = [case.label, case.ratio, case.attack, case.settings, held_out, step]
                lines.append([*place, *intervals.mean(people), len(people)])
    return pd.DataFrame(lines, columns=CURVE_COLUMNS)


def recovery(study: Study) -> pd.DataFrame:
    """One line for each attacked model (vanilla and reference too), attack and group, with a verdict in words."""
    cases = list(attacked(study))
    yardsticks = {(c.label, c.ratio, c.attack): c.rows for c in cases if c.label in ("vanilla", "reference")}
    lines = []
    for case in cases:
        control = None if case.label == "reference" else yardsticks.get(("reference", case.ratio, case.attack))
        ceiling = yardsticks.get(("vanilla", case.ratio, case.attack))
        state = quality(study, case.members)
        for held_out in GROUPS:
            numbers = _numbers(case.rows, control, ceiling, held_out)
            if numbers is not None:
                place = {"method": case.label, "ratio": case.ratio, "attack": case.attack, "settings": case.settings}
                lines.append({**place, "held_out": held_out, **numbers, **state})
    table = pd.DataFrame(lines, columns=RECOVERY_COLUMNS)
    return table.assign(verdict=[_verdict(line) for _, line in table.iterrows()])


def attacked(study: Study) -> Iterator[Attacked]:
    """Every attack on vanilla, the reference and every winner, by ratio."""
    names = _settings(study)
    for ratio in study.ratios:
        for label, members in study.labelled(ratio):
            for key in names:
                hit = [(t, a.rows) for t in members for a in study.attacks(t.key) if a.key == key]
                if hit:
                    rows = pd.concat([_counted(rows, study.goal) for _, rows in hit], ignore_index=True)
                    yield Attacked(label, ratio, key, names[key], tuple(t for t, _ in hit), rows)


def worst(raw: pd.DataFrame) -> pd.DataFrame:
    """Of each method at each ratio, the line of `recovery` with the largest gain above control on what was held out."""
    lines = raw[raw["held_out"].isin(("person", "fact")) & ~raw["method"].isin(("vanilla", "reference"))]
    order = lines.assign(rank=lines["above_control"].fillna(-np.inf)).sort_values("rank", kind="stable")
    return order.groupby(["ratio", "method"], sort=False).tail(1).sort_values(["ratio", "rank"]).drop(columns="rank")


def _settings(study: Study) -> dict[str, str]:
    """A readable name for each attack key: its kind and the settings in which the attacks of this study differ."""
    found = {a.key: a for trial in study.trials.values() for a in study.attacks(trial.key)}
    attacks = sorted(found.values(), key=lambda a: (a.name, a.key))
    flat = {a.key: _leaves(a.settings) for a in attacks}
    names = {}
    for attack in attacks:
        mine, same = flat[attack.key], [flat[other.key] for other in attacks if other.name == attack.name]
        varied = [k for k in mine if any(other.get(k) != mine[k] for other in same)]
        shown = [f"{key.replace('_', ' ')} {_plain(mine[key])}" for key in varied]
        names[attack.key] = ", ".join([attack.name, *shown])
    return names


def _leaves(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings as one level: those of a schedule stand beside the attack's own."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _leaves(value)
        elif key != "type":
            flat[key] = value
    return flat


def _plain(value: object) -> str:
    return " + ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _counted(rows: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """The rows that count, with the group they belong to in `held_out`."""
    modalities = {modality for _, modality in forget_groups(goal)}
    counted = (rows["role"] == "forget") & (rows["task"] == "classification") & rows["modality"].isin(modalities)
    rows = rows[counted]
    if (rows["half"] == "report").any():
        rows = rows[rows["half"] == "report"]
    return rows.assign(held_out=rows["held_out"].where(rows["held_out"] != "", "seen"))


def _ends(rows: pd.DataFrame, held_out: str) -> pd.DataFrame:
    """Accuracy of each person `before` and `after` the attack."""
    rows = rows[rows["held_out"] == held_out]
    steps = rows["step"]
    before, after = rows[steps == steps.min()], rows[steps == steps.max()]
    return pd.DataFrame({"before": intervals.by_person(before), "after": intervals.by_person(after)})


def _numbers(
    rows: pd.DataFrame, control: pd.DataFrame | None, ceiling: pd.DataFrame | None, held_out: str
) -> dict[str, float | int] | None:
    """All numbers of one line; those that need a yardstick which was not attacked are NaN. None without rows."""
    mine = _ends(rows, held_out).dropna()
    if mine.empty:
        return None
    found = {
        "before": intervals.mean(mine["before"]),
        "after": intervals.mean(mine["after"]),
        "gain": intervals.bootstrap(mine, lambda m: m[:, 1] - m[:, 0]),
        "control_gain": MISSING, "above_control": MISSING, "recovery": MISSING,
    }  # fmt: skip
    control_after = vanilla_before = float("nan")
    if control is not None:
        both = mine.join(_ends(control, held_out).add_suffix("_control")).dropna()
        found["control_gain"] = intervals.bootstrap(both, lambda m: m[:, 3] - m[:, 2])
        found["above_control"] = intervals.bootstrap(both, lambda m: (m[:, 1] - m[:, 0]) - (m[:, 3] - m[:, 2]))
        control_after = float(both["after_control"].mean())
    if ceiling is not None:
        both = mine.join(_ends(ceiling, held_out)[["before"]].add_suffix("_vanilla")).dropna()
        vanilla_before = float(both["before_vanilla"].mean())
        found["recovery"] = intervals.bootstrap(both, _normalised)
    questions = rows.loc[rows["held_out"] == held_out, "question"].nunique()
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


def _verdict(line: pd.Series) -> str:
    """What one line of `recovery` says, in words. See `VERDICTS` for what each of them means."""
    if line["method"] in ("vanilla", "reference"):
        return "ceiling" if line["method"] == "vanilla" else "control"
    if line["broken"]:
        return "broken, not robust"
    if line["held_out"] == "seen":
        return "given to the attacker"
    if line["vanilla_before"] - line["before"] < SMALLEST_GAP:
        return "little was forgotten"
    if np.isnan(line["above_control_low"]):
        return "no control" if np.isnan(line["above_control"]) else "too few people"
    if line["above_control_low"] > 0:
        return "came back" if line["after"] > line["control_after"] else "rebound from overshoot"
    return "held" if line["above_control_high"] < SMALLEST_GAP else "inconclusive"
