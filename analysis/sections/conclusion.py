"""The conclusion of a study: which method is best, how close it comes to the reference, and whether it is robust."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from analysis import naming
from analysis.naming import NAMES
from analysis.sections import Part, Section, _recovery, _worst_attack, fronts, scores
from analysis.sections._recovery import HELD_OUT, SMALLEST_GAP
from analysis.study_folder import StudyResults
from analysis.tables import interval
from analysis.trials import counts, objectives_of, winners


def parts(study: StudyResults) -> Iterator[Part]:
    """The sentences of the box on top of the page."""
    yield from answer(study, winners(study), _recovery.recovery(study), _worst_attack.table(study))


def answer(study: StudyResults, winners: pd.DataFrame, recovery: pd.DataFrame, worst: pd.DataFrame) -> list[str]:
    """A few sentences for each forget ratio. Only a usable winner that improves on vanilla is called the best."""
    asked = _asked(study)
    if not study.ratios:
        return [*asked, "No trial has finished yet, so there is nothing to compare."]
    return [
        *asked,
        *(f"At forget ratio {ratio} %, {_one(study, winners, recovery, worst, ratio)}" for ratio in study.ratios),
    ]


def _asked(study: StudyResults) -> list[str]:
    """Which attributes of the forget people had to be forgotten, where that is not all of them."""
    names = [naming.words(attribute) for attribute in study.forget_attributes]
    if not names:
        return []
    listed = naming.listed(names)
    return [f"Only the {listed} of the forget people had to be forgotten; their other attributes had to stay (spared)."]


def _one(study: StudyResults, winners: pd.DataFrame, recovery: pd.DataFrame, worst: pd.DataFrame, ratio: int) -> str:
    mine = winners[winners["ratio"] == ratio]
    scored = mine.dropna(subset=["distance"]).sort_values(["distance", "method"])
    usable = scored[~scored["broken"].astype(bool)]
    broken = _names(scored.loc[scored["broken"].astype(bool), "method"])
    if scored.empty:
        return _unfinished(study, mine, ratio)
    idle = [objectives_of(study, t.key, "report")[0] for t in study.yardsticks("vanilla", ratio)[:1]]
    before = idle[0]["distance"] if idle else math.nan
    said = [_gate(study, ratio)]
    if usable.empty:
        said.append(f"no method can be recommended: every winner has collapsed ({broken}).")
        return " ".join(filter(None, said))
    best = usable.iloc[0]
    if best["distance"] >= before:
        said.append(
            f"no method improves on vanilla: the best winner, {naming.method(best['method'])}, has a distance of "
            f"{best['distance']:.2f} to the ideal point, vanilla {before:.2f}."
        )
    else:
        said += [_best(best, idle[0]["forgetting"]), _attacked(recovery, best["method"], ratio)]
        said += [_searched(worst, best["method"], ratio), _front(study, best["method"], ratio)]
        said.append(_alternative(usable.iloc[1:], recovery, worst, best["method"], ratio, before))
    if broken:
        said.append(f"Collapsed rather than unlearned: {broken}.")
    return " ".join(filter(None, said))


def _best(best: pd.Series, before: float) -> str:
    seeds = int(best["seeds"])
    recovered = f", a recovery of {best['recovery']:.2f} under the search attack" if "recovery" in best else ""
    return (
        f"{naming.method(best['method'])} comes closest to the ideal point, with a forget gap of "
        f"{best['forgetting']:.2f} to the reference that never saw the forget set (vanilla: {before:.2f}){recovered} "
        f"and a utility of {best['utility']:.2f} (vanilla: 1), on the test half of the questions "
        f"({seeds} seed{'s' if seeds > 1 else ''})."
    )


def _attacked(recovery: pd.DataFrame, method: str, ratio: int) -> str:
    lines = _held_out(recovery, method, ratio)
    if lines.empty:
        return "It has not been attacked yet, so its robustness is unknown."
    line = _recovery.worst(lines).iloc[0]
    number = f"{line['above_control']:+.2f}"
    if not math.isnan(line["above_control_low"]):
        number += f" [{line['above_control_low']:+.2f}, {line['above_control_high']:+.2f}]"
    return (
        f"The strongest attack ({line['settings']}) raised accuracy on {NAMES[line['held_out']]} from "
        f"{line['before']:.2f} to {line['after']:.2f}, {number} above control: {line['verdict']}."
    )


def _searched(worst: pd.DataFrame, method: str, ratio: int) -> str:
    """What the attack search reached, if there was one."""
    for _, line in _mine(worst, method, ratio).iterrows():
        if not line["proposals"]:
            return ""
        bad = f", {line['failed']} failed" if line["failed"] else ""
        start = f"With an attack search as well ({line['proposals']} trials{bad}), selected on the validation half,"
        if not line["attack"]:
            return f"{start} no attack leaves the model usable."
        number = interval(line["above_control"], line["above_control_low"], line["above_control_high"])
        kept = "" if math.isnan(line["kept"]) else f" and keeps {line['kept']:.2f} of the retain accuracy"
        return f"{start} the worst attack reaches {number} above control ({line['settings']}){kept}: {line['verdict']}."
    return ""


def _front(study: StudyResults, method: str, ratio: int) -> str:
    """How many trials of a front held, where whole fronts were attacked."""
    mine = _mine(fronts.table(study), method, ratio)
    if mine.empty:
        return ""
    held = int((mine["verdict"] == "held").sum())
    plural = "s" if len(mine) > 1 else ""
    return f"Of the {len(mine)} trial{plural} on its front, {held} held under the strongest attack of the suite."


def _alternative(
    others: pd.DataFrame, recovery: pd.DataFrame, worst: pd.DataFrame, best: str, ratio: int, before: float
) -> str:
    """The best method that held, where the best method of all did not."""
    if "came back" not in _verdicts(recovery, worst, best, ratio):
        return ""
    for _, other in others[others["distance"] < before].iterrows():
        if _verdicts(recovery, worst, other["method"], ratio) == {"held"}:
            name = naming.method(other["method"])
            return (
                f"Its unlearning is superficial; the best method that held is {name} (distance "
                f"{other['distance']:.2f})."
            )
    return "Its unlearning is superficial, and no other usable method is shown to have held."


def _verdicts(recovery: pd.DataFrame, worst: pd.DataFrame, method: str, ratio: int) -> set[str]:
    """The verdicts on a method under the suite and the worst attack, without those that say nothing."""
    found = {*_held_out(recovery, method, ratio)["verdict"], *_mine(worst, method, ratio)["verdict"]}
    return found - {"collapsed under attack", "not attacked"}


def _mine(frame: pd.DataFrame, method: str, ratio: int) -> pd.DataFrame:
    return frame[(frame["method"] == method) & (frame["ratio"] == ratio)]


def _held_out(recovery: pd.DataFrame, method: str, ratio: int) -> pd.DataFrame:
    mine = _mine(recovery, method, ratio)
    return mine[mine["held_out"].isin(HELD_OUT)]


def _gate(study: StudyResults, ratio: int) -> str:
    gate = scores.gate(study)
    mine = gate[(gate["ratio"] == ratio) & (gate["role"] == "forget") & (gate["modality"] == "image_text")]
    if mine.empty or mine["gap"].item() >= SMALLEST_GAP:
        return ""
    return (
        f"(caution: vanilla knows hardly more about the forget set than the reference, an accuracy of "
        f"{mine['vanilla'].item():.2f} against {mine['reference'].item():.2f}, so there was little to forget)"
    )


def _unfinished(study: StudyResults, winners: pd.DataFrame, ratio: int) -> str:
    found = counts(study)
    mine = found.loc[found["ratio"] == ratio, ["proposals", "complete", "diverged", "failed"]].sum()
    why = "no winner has been selected" if winners.empty else "no winner has been scored on the test half"
    return (
        f"there is no result yet: {why} ({mine['complete']:.0f} of {mine['proposals']:.0f} trials complete, "
        f"{mine['diverged']:.0f} diverged, {mine['failed']:.0f} failed)."
    )


def _names(methods: pd.Series[str]) -> str:
    return ", ".join(map(naming.method, methods))


SECTION = Section("", 0, parts)
