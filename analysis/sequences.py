"""Requests one after another: what is known of each group of people after every request, and what came back."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis import intervals, words
from analysis.folder import InTurn, Study, Trial
from analysis.intervals import Interval, Values
from analysis.robustness import SMALLEST_GAP
from study.core.terms import Goal
from study.metrics.objectives import BROKEN

COLUMNS = ["method", "ratio", "requests", "state", "done", "group", "modality", "mean", "low", "high", "people",
           "diverged"]  # fmt: skip
OTHERS = ("retain", "real", "spared")


@lru_cache(maxsize=4)
def table(study: Study) -> pd.DataFrame:
    """Accuracy of each group after each number of requests, one line a winner, group and state.

    `state` is `in turn` with `done` requests (0: vanilla), `at once` for the same winner with all people in one
    request, and `reference` for the model that never saw them. Groups: the forget people of `request 1`, `request 2`,
    ..., and those whose knowledge is to stay. Report half, questions of a choice, intervals over people.
    """
    lines = []
    for found in winners(study):
        place = {"method": found.method, "ratio": found.trial.ratio, "requests": found.turns.requests,
                 "diverged": found.turns.diverged}  # fmt: skip
        whole = study.rows(found.trial.key, "report")
        bars = [study.rows(t.key, "report") for t in study.yardsticks("reference", found.trial.ratio)[:1]]
        stages = [("in turn", int(str(step)), rows) for step, rows in found.turns.rows.groupby("step")]
        others = [("at once", found.turns.requests, whole), *(("reference", 0, rows) for rows in bars)]
        for state, done, rows in [*stages, *((s, d, r) for s, d, r in others if r is not None)]:
            for group, modality, people in _groups(rows, found.turns, study.goal):
                value = intervals.mean(people)._asdict()
                where = {"state": state, "done": done, "group": group, "modality": modality}
                lines.append({**place, **where, **value, "people": len(people)})
    return pd.DataFrame(lines, columns=COLUMNS)


class Winner(NamedTuple):
    """A winner whose requests came one after another."""

    method: str
    trial: Trial
    turns: InTurn


def winners(study: Study) -> list[Winner]:
    """Every sequence on disk of the winners, by ratio and method."""
    return [
        Winner(method, trial, turns)
        for ratio in study.ratios
        for method, members in study.labelled(ratio)
        for trial in members
        for turns in study.sequences(trial.key)
    ]


def said(study: Study) -> list[str]:
    """What later requests brought back, in plain words for each ratio; nothing without sequences."""
    kinds = {
        "back": "after the last request, of what request 1 had removed this is back: {}.",
        "stayed": "what request 1 removed stayed removed with {}.",
        "little": f"request 1 removed less than {SMALLEST_GAP} accuracy, too little to tell a part of it, with {{}}.",
        "destroyed": f"less than {BROKEN} of the retain accuracy is left of {{}}: destroyed, so nothing is said of "
        "what came back.",
        "ended": "the sequence did not get to its end with {}.",
    }  # fmt: skip
    found: dict[tuple[int, str], list[str]] = {}
    for one in winners(study):
        for kind, text in _told(one, study.goal):
            found.setdefault((one.trial.ratio, kind), []).append(text)
    return [
        f"At forget ratio {ratio} %, {kinds[kind].format(words.listed(found[ratio, kind]))}"
        for ratio in study.ratios
        for kind in kinds
        if (ratio, kind) in found
    ]


def _told(found: Winner, goal: Goal) -> list[tuple[str, str]]:
    """What is to be said of one sequence: the kind of sentence and what stands in it."""
    name, done = words.method(found.method), int(found.turns.rows["step"].max())
    ended = f"{name} ({done} of {found.turns.requests} requests done; {found.turns.diverged})"
    said = [("ended", ended)] if found.turns.diverged else []
    if _destroyed(found):
        return [("destroyed", f"{name} (after request {done})"), *said]
    if done < 2:
        return said
    _, back = first(found, goal)
    if math.isnan(back.mean):
        return [("little", name), *said]
    kind = "back" if back.mean >= SMALLEST_GAP else "stayed"
    return [(kind, f"{name} {_percent(back)} (after request {done})" if kind == "back" else name), *said]


def first(found: Winner, goal: Goal) -> tuple[float, Interval]:
    """The accuracy that request 1 took from its people, and the part of it that is back after the last request.

    Both over the modalities that were to be forgotten; the part is not a number where too little was removed.
    """
    rows = found.turns.rows
    stages = {"before": 0, "after": 1, "last": int(rows["step"].max())}
    mine = rows[rows["person"].isin(found.turns.people[0]) & _asked(rows, goal) & (rows["role"] == "forget")]
    people = pd.DataFrame({name: intervals.by_person(mine[mine["step"] == step]) for name, step in stages.items()})
    removed = float((people["before"] - people["after"]).mean())
    if not removed >= SMALLEST_GAP:
        return removed, intervals.MISSING
    return removed, intervals.bootstrap(people[["before", "after", "last"]].dropna(), _back)


def _back(means: Values) -> Values:
    """The part of what was removed that is back; not a number where too little was removed."""
    removed = means[:, 0] - means[:, 1]
    safe = np.where(removed < SMALLEST_GAP, np.nan, removed)
    return np.asarray((means[:, 2] - means[:, 1]) / safe, dtype=float)


def _groups(rows: pd.DataFrame, turns: InTurn, goal: Goal) -> list[tuple[str, str, pd.Series[float]]]:
    """Each group of people and modality with the accuracy of every person."""
    asked = rows[_asked(rows, goal)]
    forget = asked[asked["role"] == "forget"]
    parts = {f"request {number}": forget[forget["person"].isin(who)] for number, who in enumerate(turns.people, 1)}
    parts |= {role: asked[asked["role"] == role] for role in OTHERS}
    return [
        (name, str(modality), intervals.by_person(group))
        for name, part in parts.items()
        for modality, group in part.groupby("modality")
    ]


def _asked(rows: pd.DataFrame, goal: Goal) -> pd.Series[bool]:
    modalities = ("image_text",) if goal == "visual" else ("image_text", "text")
    return (rows["task"] == "classification") & rows["modality"].isin(modalities)


def _destroyed(found: Winner) -> bool:
    rows = found.turns.rows
    retain = rows[(rows["role"] == "retain") & (rows["task"] == "classification")]
    levels = retain.pivot_table(values="score", index="step", columns="modality", aggfunc="mean")
    return bool(len(levels) and (levels.iloc[-1] < BROKEN * levels.iloc[0]).any())


def _percent(part: Interval) -> str:
    if math.isnan(part.low):
        return f"{100 * part.mean:.0f} %"
    return f"{100 * part.mean:.0f} % [{100 * part.low:.0f}, {100 * part.high:.0f}]"
