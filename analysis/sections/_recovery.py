"""Recovery under attack, judged only on people and facts that the attacker was not given.

The questions are multiple-choice questions about the forget set in the modalities that had to be forgotten, averaged
within a person, then over people and seeds. Where the attack rows hold both halves, only the test half counts. What
is judged is the probability of the right option, which is smoother than accuracy (accuracy where an attack gives no
probability). With `before` at attack step 0 and `after` at the last step:

- gain = after - before;
- gain above control = gain - gain of the references under the same attack: they cannot remember, only learn, so what
  they gain is not recovery;
- normalized recovery = (after - before) / (vanilla before - before): 0 nothing came back, 1 all of it. Not defined
  where less than `SMALLEST_GAP` was forgotten.

Before, after, the control's and vanilla's level are also given as accuracies. People and seeds of the winner and of
the references are crossed random effects (`study.metrics.intervals`); the noise of seeds is that of all lines of a
table together, and verdicts control the error over all of them (`study.metrics.verdicts`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import pandas as pd

from analysis import intervals
from analysis.sections._attack_suite import Attacked, attacked
from analysis.study_folder import StudyResults
from analysis.trials import quality
from study.metrics.intervals import Block, Estimate, Values, estimate, pooled
from study.metrics.verdicts import MARGIN, Evidence, needed, verdicts

SMALLEST_GAP = MARGIN
"""What must have been forgotten for a normalized recovery to mean anything."""
NOTHING_TO_SEE = {"collapsed": "\u00d7", "collapsed under attack": "\u2021", "not unlearned": "\u25cb"}
"""Verdicts that make a gain meaningless, with the sign of each in a figure."""

GROUPS = ("person", "fact", "seen")
"""What the attacker was not given: the person, or the fact; `seen`: given both, so the attack must work there."""
HELD_OUT = ("person", "fact")
BASELINES = {"vanilla": "ceiling", "reference": "control"}
"""What stands in place of a verdict on the models that were never unlearned."""

ESTIMATES = ("before", "after", "gain", "control_gain", "above_control", "recovery")
LEVELS = ("control_after", "vanilla_before", "forgotten")
POINT = ("step", "mean", "low", "high", "people")
CURVE_COLUMNS = ["method", "ratio", "attack", "settings", "held_out", *POINT]
NUMBER_COLUMNS = ["people", "questions", "seeds", *LEVELS,
                  *(f"{name}{end}" for name in ESTIMATES for end in ("", "_low", "_high"))]  # fmt: skip
RECOVERY_COLUMNS = ["method", "ratio", "key", "attack", "settings", "held_out", *NUMBER_COLUMNS, "kept", "control_kept",
                    "retained", "broken", "verdict", "would_tell"]  # fmt: skip
UNKNOWN = Estimate(math.nan)

Line = Mapping[str, Any]
"""One line of a table before it is judged: its numbers, with an `Estimate` under each name of `ESTIMATES`."""


def curves(study: StudyResults) -> pd.DataFrame:
    """Accuracy with interval at every step of the attacks that are scored on the way, on what was held out."""
    lines = []
    for case in attacked(study):
        place = {"method": case.label, "ratio": case.ratio, "attack": case.attack, "settings": case.settings}
        for name in HELD_OUT if case.rows["step"].nunique() > 2 else ():
            lines += [{**place, "held_out": name, **point} for point in stepwise(case.rows, [name])]
    return pd.DataFrame(lines, columns=CURVE_COLUMNS)


def stepwise(rows: pd.DataFrame, groups: Sequence[str]) -> list[dict[str, float]]:
    """Accuracy with interval at every attack step, on some groups of questions; the columns of `POINT`."""
    chosen = rows[rows["held_out"].isin(groups)]
    points = []
    for step, now in chosen.groupby("step"):
        value = intervals.mean(now).interval()
        points.append({"step": int(str(step)), **value._asdict(), "people": now["person"].nunique()})
    return points


@lru_cache(maxsize=4)
def recovery(study: StudyResults) -> pd.DataFrame:
    """One line for each attacked model (vanilla and reference too), attack and group, with a verdict in words."""
    return _table(study, {name: (name,) for name in GROUPS})


@lru_cache(maxsize=4)
def pooled_groups(study: StudyResults) -> pd.DataFrame:
    """Like `recovery`, with one line for all that was held out, people and facts together."""
    return _table(study, {"both": HELD_OUT})


def _table(study: StudyResults, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    baselines = {(c.label, c.ratio, c.attack): c for c in attacked(study) if c.label in BASELINES}
    lines = []
    for case in attacked(study):
        control = None if case.label == "reference" else baselines.get(("reference", case.ratio, case.attack))
        ceiling = baselines.get(("vanilla", case.ratio, case.attack))
        for name, group in groups.items():
            if (line := compared(study, case, control, ceiling, group)) is not None:
                lines.append({**line, "held_out": name})
    return judged(lines, study).reindex(columns=RECOVERY_COLUMNS)


def compared(
    study: StudyResults, case: Attacked, control: Attacked | None, ceiling: Attacked | None, groups: Sequence[str]
) -> Line | None:
    """One line, still to be judged: an attack on a model beside the same on the control. None without questions."""
    rows = (case.rows, control.rows if control else None, ceiling.rows if ceiling else None)
    found = numbers(*rows, groups, f"{case.label} at {case.ratio} %", f"reference at {case.ratio} %")
    if found is None:
        return None
    return {
        "method": case.label, "ratio": case.ratio, "key": case.members[0].key, "attack": case.attack,
        "settings": case.settings, "weights": case.weights, **found, "kept": case.kept,
        "control_kept": control.kept if control else math.nan, **quality(study, case.members),
    }  # fmt: skip


def judged(lines: Sequence[Line], study: StudyResults) -> pd.DataFrame:
    """The lines of one table with their verdicts, and every estimate as a number with its bounds."""
    methods = [line for line in lines if line["method"] not in BASELINES]
    together = pooled([line["above_control"] for line in methods])
    methods = [{**line, "above_control": one} for line, one in zip(methods, together, strict=True)]
    found = verdicts([_evidence(line, study.attack_keeps) for line in methods], study.margin)
    told = iter([{**line, "verdict": said} for line, said in zip(methods, found, strict=True)])
    shown = [{**line, "verdict": BASELINES[line["method"]]} if line["method"] in BASELINES else next(told)
             for line in lines]  # fmt: skip
    return pd.DataFrame([{**_flat(line), "would_tell": _would_tell(line, study.margin)} for line in shown])


def _would_tell(line: Line, margin: float) -> str:
    """The people and seeds with which a verdict that could not be given could be; empty where none is known."""
    more = needed(line["above_control"], margin) if line["verdict"] == "cannot tell" else None
    return f"{more.people} people and {more.seeds} seed{'s' * (more.seeds > 1)}" if more else ""


def _evidence(line: Line, keeps: float) -> Evidence:
    left = line["kept"] / line["control_kept"] if line["control_kept"] > 0 else line["kept"]
    return Evidence(
        line["above_control"], gain=line["gain"].value, after=line["level_after"], control_after=line["level_control"],
        forgotten=line["forgotten"], given=line["held_out"] == "seen", collapsed=line["broken"],
        ruined=line["weights"] and left < keeps,
    )  # fmt: skip


def as_long(rows: pd.DataFrame, control: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Both up to the last step that every seed of both was taken to: one that diverged early was a shorter attack.

    Seeds that diverged before anything was scored are out; no control where none is left of either.
    """
    met = [part[part.groupby("seed")["step"].transform("nunique") > 1] for part in (rows, control)]
    if any(part.empty for part in met):
        return rows, None
    last = min(float(part.groupby("seed")["step"].max().min()) for part in met)
    return met[0][met[0]["step"] <= last], met[1][met[1]["step"] <= last]


def numbers(
    rows: pd.DataFrame,
    control: pd.DataFrame | None,
    ceiling: pd.DataFrame | None,
    groups: Sequence[str],
    model: str,
    reference: str,
) -> dict[str, Any] | None:
    """All numbers of one line; those that need a baseline that was not attacked are NaN. None without rows.

    `model` and `reference` name their seeds among those of a table. All are taken at the last step that the control has
    as well, so that after and the control's after go together.
    """
    rows = rows[rows["held_out"].isin(groups)]
    control, ceiling = (None if part is None else part[part["held_out"].isin(groups)] for part in (control, ceiling))
    if rows.empty:
        return None
    if control is not None and len(control):
        rows, control = as_long(rows, control)
    column = "score" if rows["probability"].isna().any() else "probability"
    seed = f"seed of {model}"
    own, people = _ends(rows, column)
    levels = {"control_after": math.nan, "vanilla_before": math.nan, "forgotten": math.nan, "level_control": math.nan}
    found = {
        "before": intervals.mean(_at(rows, "min")), "after": intervals.mean(_at(rows, "max")),
        "gain": estimate(_gain, [Block(own, ("people", seed, ""))], ["people"], [seed]),
        "control_gain": UNKNOWN, "above_control": UNKNOWN, "recovery": UNKNOWN,
    }  # fmt: skip
    if control is not None and len(control):
        found |= _above(rows, control, column, [seed, f"seed of {reference}"])
        levels["control_after"] = intervals.mean(_at(control, "max")).value
        levels["level_control"] = float(_ends(control, column)[0][..., 1].mean())
    if ceiling is not None and len(ceiling):
        before = intervals.table(_at(ceiling, "min"), column)
        common = [i for i, person in enumerate(people) if person in before.index]
        blocks = [
            Block(own[common], ("people", seed, "")),
            Block(before.loc[[people[i] for i in common]].to_numpy(), ("people", "")),
        ]
        levels["vanilla_before"] = intervals.mean(_at(ceiling, "min")).value
        levels["forgotten"] = float(blocks[1].values.mean() - blocks[0].values[..., 0].mean())
        if levels["forgotten"] >= SMALLEST_GAP:
            found["recovery"] = estimate(_normalized, blocks, ["people"], [seed])
    size = {"people": len(people), "questions": rows["question"].nunique(), "seeds": own.shape[1]}
    return {**size, **found, **levels, "level_after": float(own[..., 1].mean())}


def level_after(rows: pd.DataFrame, groups: Sequence[str]) -> float:
    """Accuracy after the attack, on some groups of questions."""
    return intervals.mean(_at(rows[rows["held_out"].isin(groups)], "max")).value


def _above(rows: pd.DataFrame, control: pd.DataFrame, column: str, seeds: Sequence[str]) -> dict[str, Estimate]:
    """The gain of the control and the gain above it, paired by person."""
    (own, people), (other, known) = _ends(rows, column), _ends(control, column)
    common = sorted(set(people) & set(known))
    own, other = own[[people.index(p) for p in common]], other[[known.index(p) for p in common]]
    blocks = [Block(values, ("people", seed, "")) for values, seed in zip((own, other), seeds, strict=True)]
    return {
        "control_gain": estimate(_gain, blocks[1:], ["people"], seeds[1:]),
        "above_control": estimate(lambda v: _gain(v[:1]) - _gain(v[1:]), blocks, ["people"], seeds),
    }


def _ends(rows: pd.DataFrame, column: str) -> tuple[Values, list[str]]:
    """Levels before and after, of shape (people, seeds, 2), and the people."""
    before, after = intervals.table(_at(rows, "min"), column), intervals.table(_at(rows, "max"), column)
    common = before.index.intersection(after.index)
    both = pd.concat([before.loc[common], after.loc[common]], axis=1).to_numpy(dtype=float)
    return both.reshape(len(common), 2, -1).transpose(0, 2, 1), list(common)


def _at(rows: pd.DataFrame, end: Literal["min", "max"]) -> pd.DataFrame:
    """The rows at the first (`min`) or last (`max`) step of each seed."""
    return rows[rows["step"] == rows.groupby("seed")["step"].transform(end)]


def _gain(values: Sequence[Values]) -> float:
    return float((values[0][..., 1] - values[0][..., 0]).mean())


def _normalized(values: Sequence[Values]) -> float:
    """(after - before) / (vanilla before - before) of the attacked model's levels and vanilla's."""
    before = values[0][..., 0].mean()
    return float((values[0][..., 1].mean() - before) / (values[1].mean() - before))


def _flat(line: Line) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, Estimate):
            flat |= dict(zip((name, f"{name}_low", f"{name}_high"), value.interval(), strict=True))
        else:
            flat[name] = value
    return flat
