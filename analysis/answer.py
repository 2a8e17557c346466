"""The plain answer of a study: which method, how near to the reference, and what came back under attack."""

from __future__ import annotations

import math

import pandas as pd

from analysis import robustness, table
from analysis.folder import Study
from analysis.present import NAMES
from analysis.robustness import SMALLEST_GAP


def answer(study: Study, winners: pd.DataFrame, recovery: pd.DataFrame) -> list[str]:
    """A few sentences for each forget ratio. Best is only a usable winner that beats doing nothing."""
    if not study.ratios:
        return ["Nothing has finished yet: no trial is on disk, so there is nothing to compare."]
    return [f"At forget ratio {ratio} %, {_one(study, winners, recovery, ratio)}" for ratio in study.ratios]


def _one(study: Study, winners: pd.DataFrame, recovery: pd.DataFrame, ratio: int) -> str:
    mine = winners[winners["ratio"] == ratio]
    scored = mine.dropna(subset=["distance"]).sort_values(["distance", "method"])
    usable = scored[~scored["broken"].astype(bool)]
    broken = _names(scored.loc[scored["broken"].astype(bool), "method"])
    if scored.empty:
        return _unfinished(study, mine, ratio)
    idle = [table.objectives_of(study, t.key, "report")[0] for t in study.yardsticks("vanilla", ratio)[:1]]
    before = idle[0]["distance"] if idle else math.nan
    said = [_gate(study, ratio)]
    if usable.empty:
        said.append(f"no method can be recommended: every winner is a destroyed model ({broken}).")
        return " ".join(filter(None, said))
    best = usable.iloc[0]
    if best["distance"] >= before:
        said.append(
            f"no method beats leaving the model alone: the nearest, {_name(best['method'])}, lies "
            f"{best['distance']:.2f} from the ideal and vanilla {before:.2f}."
        )
    else:
        said += [_best(best, idle[0]["forgetting"]), _attacked(recovery, best["method"], ratio)]
        said.append(_alternative(usable.iloc[1:], recovery, best["method"], ratio, before))
    if broken:
        said.append(f"Destroyed rather than unlearned: {broken}.")
    return " ".join(filter(None, said))


def _best(best: pd.Series, before: float) -> str:
    seeds = int(best["seeds"])
    return (
        f"{_name(best['method'])} comes nearest to the ideal: it is {best['forgetting']:.2f} away from the reference "
        f"that never saw what was to be forgotten (vanilla: {before:.2f}) and keeps a utility of {best['utility']:.2f} "
        f"(vanilla: 1), on questions that did not select it ({seeds} seed{'s' if seeds > 1 else ''})."
    )


def _attacked(recovery: pd.DataFrame, method: str, ratio: int) -> str:
    lines = _held_out(recovery, method, ratio)
    if lines.empty:
        return "It has not been attacked yet, so whether it holds is open."
    line = robustness.worst(lines).iloc[0]
    number = f"{line['above_control']:+.2f}"
    if not math.isnan(line["above_control_low"]):
        number += f" [{line['above_control_low']:+.2f}, {line['above_control_high']:+.2f}]"
    return (
        f"The attack that got most back ({line['settings']}) took {NAMES[line['held_out']]} from {line['before']:.2f} "
        f"to {line['after']:.2f} accuracy, {number} above control: {line['verdict']}."
    )


def _alternative(others: pd.DataFrame, recovery: pd.DataFrame, best: str, ratio: int, before: float) -> str:
    """Who holds, when the best does not."""
    if not (_held_out(recovery, best, ratio)["verdict"] == "came back").any():
        return ""
    for _, other in others[others["distance"] < before].iterrows():
        verdicts = _held_out(recovery, other["method"], ratio)["verdict"]
        if len(verdicts) and (verdicts == "held").all():
            return f"So it hides; the nearest that held is {_name(other['method'])} (distance {other['distance']:.2f})."
    return "So it hides, and no other usable method is shown to have held."


def _held_out(recovery: pd.DataFrame, method: str, ratio: int) -> pd.DataFrame:
    mine = (recovery["method"] == method) & (recovery["ratio"] == ratio)
    return recovery[mine & recovery["held_out"].isin(["person", "fact"])]


def _gate(study: Study, ratio: int) -> str:
    gate = table.gate(study)
    mine = gate[(gate["ratio"] == ratio) & (gate["role"] == "forget") & (gate["modality"] == "image_text")]
    if mine.empty or mine["gap"].item() >= SMALLEST_GAP:
        return ""
    return (
        f"(beware: vanilla knows hardly more about the forget set than the reference, {mine['vanilla'].item():.2f} "
        f"against {mine['reference'].item():.2f}, so there was little to forget)"
    )


def _unfinished(study: Study, winners: pd.DataFrame, ratio: int) -> str:
    counts = table.counts(study)
    mine = counts.loc[counts["ratio"] == ratio, ["proposals", "complete", "diverged", "failed"]].sum()
    why = "no winner has been chosen" if winners.empty else "the winners have no report rows"
    return (
        f"there is no result yet: {why} ({mine['complete']:.0f} of {mine['proposals']:.0f} proposals complete, "
        f"{mine['diverged']:.0f} diverged, {mine['failed']:.0f} failed)."
    )


def _names(methods: pd.Series[str]) -> str:
    return ", ".join(map(_name, methods))


def _name(method: str) -> str:
    return method.replace("_", " ")
