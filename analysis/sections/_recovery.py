"""Recovery under attack, judged only on people and facts that the attacker was not given.

The questions are multiple-choice questions about the forget set in the modalities that had to be forgotten, averaged
within a person, then over people and seeds. Where the attack rows hold both halves, only the test half counts. What
is judged is the probability of the right option, which is smoother than accuracy (accuracy where an attack gives no
probability). With `before` at attack step 0 and `after` at the step where the attacker stops (`study.metrics.recovery`:
the largest gain above control on the validation half, one step for all seeds, for the control and for all groups):

- gain = after - before;
- gain above control = gain - gain of the references under the same attack: they cannot remember, only learn, so what
  they gain is not recovery;
- normalized recovery = (after - before) / (vanilla before - before): 0 nothing came back, 1 all of it. Not defined
  where less than `SMALLEST_GAP` was forgotten;
- attack gain (AG) = after - before in accuracy. Papers name AG without a formula, so this definition is ours;
- steps to recovery: `halfway`.

Before, after, the control's and vanilla's level are also given as accuracies. People and seeds of the winner and of
the references are crossed random effects (`study.metrics.intervals`); the noise of seeds is that of all lines of a
table together, and verdicts control the error over all of them (`study.metrics.verdicts`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from analysis import naming
from analysis.sections._attack_suite import Attacked, attacked, kept, levels_of, stop
from analysis.sections._halfway import halfway, pooled_halves
from analysis.sections._levels import Levels, above_control, gain_of, paired
from analysis.study_folder import StudyResults
from analysis.trials import quality
from study.metrics.intervals import LEVEL, MISSING, Block, Estimate, Values, estimate, mean, pooled
from study.metrics.recovery import first_reached
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

ESTIMATES = ("before", "after", "gain", "control_gain", "above_control", "recovery", "attack_gain",
             "control_attack_gain")  # fmt: skip
LEVELS = ("control_after", "vanilla_before", "forgotten")
POINT = ("step", "mean", "low", "high", "people")
CURVE_COLUMNS = ["method", "ratio", "attack", "settings", "held_out", *POINT]
NUMBER_COLUMNS = ["people", "questions", "seeds", *LEVELS,
                  *(f"{name}{end}" for name in ESTIMATES for end in ("", "_low", "_high"))]  # fmt: skip
STEP_COLUMNS = ["step", "last_step", "half_back", "half_back_low", "half_back_high"]
ABOUT_COLUMNS = ["flops", "control_flops", "precision"]
"""What an attack cost, on the model and on the references, and the precision of what it met."""
RECOVERY_COLUMNS = ["method", "ratio", "key", "attack", "settings", "held_out", *STEP_COLUMNS, *NUMBER_COLUMNS, "kept",
                    "control_kept", *ABOUT_COLUMNS, "retained", "broken", "verdict", "would_tell"]  # fmt: skip
UNKNOWN = Estimate(math.nan)

Line = Mapping[str, Any]
"""One line of a table before it is judged: its numbers, with an `Estimate` under each name of `ESTIMATES`."""


def in_precision(raw: pd.DataFrame) -> str:
    """The sentence on the precision that the verdicts of a table are about; empty where it is not known."""
    known = sorted({str(one) for one in raw["precision"].dropna() if one})
    return f"Verdicts are on weights in {naming.listed(known)}, before the attack." if known else ""


def curves(study: StudyResults) -> pd.DataFrame:
    """Accuracy with interval at every step of the attacks that are scored on the way, on what was held out."""
    lines = []
    for case in attacked(study):
        place = {"method": case.label, "ratio": case.ratio, "attack": case.attack, "settings": case.settings}
        for name in HELD_OUT if case.goes_on and case.rows["step"].nunique() > 2 else ():
            lines += [{**place, "held_out": name, **point} for point in stepwise(case, (name,))]
    return pd.DataFrame(lines, columns=CURVE_COLUMNS)


def stepwise(case: Attacked, groups: tuple[str, ...]) -> list[dict[str, float]]:
    """Accuracy with interval at every attack step, on some groups of questions; the columns of `POINT`."""
    found = levels_of(case, groups)
    there = [(step, found.at(step)) for step in found.steps] if found else []
    return [{"step": step, **mean(now).interval()._asdict(), "people": len(now)} for step, now in there]


@lru_cache(maxsize=4)
def recovery(study: StudyResults) -> pd.DataFrame:
    """One line for each attacked model (vanilla and reference too), attack and group, with a verdict in words."""
    return _table(study, {name: (name,) for name in GROUPS})


@lru_cache(maxsize=4)
def pooled_groups(study: StudyResults) -> pd.DataFrame:
    """Like `recovery`, with one line for all that was held out, people and facts together."""
    return _table(study, {"both": HELD_OUT})


def _table(study: StudyResults, groups: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
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
    study: StudyResults, case: Attacked, control: Attacked | None, ceiling: Attacked | None, groups: tuple[str, ...]
) -> Line | None:
    """One line, still to be judged: an attack on a model beside the same on the control. None without questions."""
    own, other, vanilla = (levels_of(part, groups) if part else None for part in (case, control, ceiling))
    if own is None:
        return None
    step = stop(case, control)
    names = (f"seed of {case.label} at {case.ratio} %", f"seed of reference at {case.ratio} %")
    found = numbers(own, other, vanilla, step, names)
    return {
        "method": case.label, "ratio": case.ratio, "key": case.members[0].key, "attack": case.attack,
        "settings": case.settings, "weights": case.weights, "tried": 1, **found, "kept": kept(case, "report", step),
        "control_kept": kept(control, "report", step) if control else math.nan, "flops": case.flops,
        "control_flops": control.flops if control else math.nan,
        "halfway": halfway(own, other, vanilla, names) if case.goes_on else {},
        "precision": study.precision(case.members[0]), **quality(study, case.members),
    }  # fmt: skip


def judged(lines: Sequence[Line], study: StudyResults) -> pd.DataFrame:
    """The lines of one table with their verdicts, and every estimate as a number with its bounds."""
    methods = [line for line in lines if line["method"] not in BASELINES]
    together = pooled([line["above_control"] for line in methods])
    halves = pooled_halves([line["halfway"] for line in methods])
    methods = [{**line, "above_control": one, "halfway": half}
               for line, one, half in zip(methods, together, halves, strict=True)]  # fmt: skip
    found = verdicts([_evidence(line, study.attack_keeps) for line in methods], study.margin)
    told = iter([{**line, "verdict": said} for line, said in zip(methods, found, strict=True)])
    shown = [{**line, "verdict": BASELINES[line["method"]]} if line["method"] in BASELINES else next(told)
             for line in lines]  # fmt: skip
    return pd.DataFrame(
        [{**_flat(line), **_half_back(line), "would_tell": _would_tell(line, study.margin)} for line in shown]
    )


def _half_back(line: Line) -> dict[str, float]:
    """The step at which half of what was forgotten is back, with its bounds; infinite beyond the last step."""
    found = first_reached(line["halfway"]) if line["halfway"] else MISSING
    return dict(zip(("half_back", "half_back_low", "half_back_high"), found, strict=True))


def _would_tell(line: Line, margin: float) -> str:
    """The people and seeds with which a verdict that could not be given could be; empty where none is known."""
    more = needed(line["above_control"], margin) if line["verdict"] == "cannot tell" else None
    return f"{more.people} people and {more.seeds} seed{'s' * (more.seeds > 1)}" if more else ""


def _evidence(line: Line, keeps: float) -> Evidence:
    left = line["kept"] / line["control_kept"] if line["control_kept"] > 0 else line["kept"]
    return Evidence(
        line["above_control"], gain=line["gain"].value, after=line["level_after"], control_after=line["level_control"],
        forgotten=line["forgotten"], tried=line["tried"], given=line["held_out"] == "seen", collapsed=line["broken"],
        ruined=line["weights"] and left < keeps,
    )  # fmt: skip


def numbers(
    own: Levels, control: Levels | None, ceiling: Levels | None, step: int | None, seeds: Sequence[str]
) -> dict[str, Any]:
    """All numbers of one line; those that need a baseline that was not attacked are NaN.

    All are taken at one step, so that after and the control's after go together. Without one there is no control, and
    each seed counts at its last. `seeds` names those of the model and of the control.
    """
    judged, (accuracy, _) = own.ends(step, own.judged), own.ends(step, "score")
    values, people = judged
    found: dict[str, Any] = {
        "before": mean(accuracy[..., 0]), "after": mean(accuracy[..., 1]), "gain": gain_of(values, seeds[0]),
        "attack_gain": gain_of(accuracy, seeds[0]), "control_gain": UNKNOWN, "above_control": UNKNOWN,
        "recovery": UNKNOWN, "control_attack_gain": UNKNOWN, **dict.fromkeys((*LEVELS, "level_control"), math.nan),
    }  # fmt: skip
    if control is not None and step is not None:
        beside, (its_accuracy, _) = control.ends(step, own.judged), control.ends(step, "score")
        found |= {
            "control_gain": gain_of(beside[0], seeds[1]), "control_attack_gain": gain_of(its_accuracy, seeds[1]),
            "above_control": above_control(judged, beside, seeds),
            "control_after": float(its_accuracy[..., 1].mean()), "level_control": float(beside[0][..., 1].mean()),
        }  # fmt: skip
    if ceiling is not None:
        before, known = ceiling.ends(None, own.judged)
        mine, vanilla = paired(judged, (before[..., 0], known))
        found["vanilla_before"] = float(ceiling.ends(None, "score")[0][..., 0].mean())
        found["forgotten"] = float(vanilla.mean() - mine[..., 0].mean())
        if found["forgotten"] >= SMALLEST_GAP:
            blocks = [Block(mine, ("people", seeds[0], "")), Block(vanilla, ("people", ""))]
            found["recovery"] = estimate(_normalized, blocks, ["people"], seeds[:1])
    size = {"people": len(people), "questions": own.questions, "seeds": values.shape[1]}
    where = {"step": own.steps[-1] if step is None else step, "last_step": own.steps[-1]}
    return {**size, **where, **found, "level_after": float(values[..., 1].mean())}


def accuracy_at(case: Attacked, groups: tuple[str, ...], step: int) -> float:
    """Accuracy at one step of the attack, on some groups of questions; NaN of a model that was not taken to it."""
    found = levels_of(case, groups)
    return float(found.at(step).mean()) if found and step in found.steps else math.nan


def _normalized(values: Sequence[Values]) -> float:
    """(after - before) / (vanilla before - before) of the attacked model's levels and vanilla's."""
    before = values[0][..., 0].mean()
    return float((values[0][..., 1].mean() - before) / (values[1].mean() - before))


def _flat(line: Line) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, Estimate):
            chosen = line["tried"] if name == "above_control" else 1  # the worst of several needs a wider interval
            bounds = value.interval(1.0 - (1.0 - LEVEL) / chosen)
            flat |= dict(zip((name, f"{name}_low", f"{name}_high"), bounds, strict=True))
        else:
            flat[name] = value
    return flat
