"""What can still be got out of a model about each person whom it was to forget.

The score of a person is the mean probability of the right option, over questions and seeds, on what the attacker was
not given. The worst of several attacks, no attack among them, is chosen for each person on the validation half, by what
the model then knows more than the attacked references, and told on the test half, as everywhere.

A mean over people can hide one who was kept. So a person stands out of whom more than the margin, and more than one
reference knows beyond the others of anybody, is known beyond the references.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from analysis import comparison
from analysis.sections import _worst_attack, leaks
from analysis.sections._attack_suite import Attacked, case_of, levels_of, stop
from analysis.sections._levels import Levels, levels
from analysis.sections._recovery import HELD_OUT
from analysis.study_folder import StudyResults
from study.core.records import TrialRecord
from study.core.terms import HALVES, Half
from study.metrics.forget_gap import smallest_leak
from study.metrics.intervals import mean
from study.metrics.objectives import forget_groups

NO_ATTACK = "no attack"
COLUMNS = ["person", "known", "known_reference", "score", "reference_score", "worst_score", "worst_low", "worst_high",
           "worst_attack", "worst_attack_key", "control", "above_control", "k", "leak", "leak_control", "questions",
           "facts", "smallest_leak", "stands_out"]  # fmt: skip


class Way(NamedTuple):
    """One way to ask a model, and the references beside it: the rows of each half and where the attacker stops."""

    key: str
    name: str
    step: int
    own: tuple[Levels, Levels]
    """On the validation half and on the test half."""
    control: tuple[Levels, Levels]
    rows: pd.DataFrame
    """Of the model on the test half."""


def people(study: StudyResults, method: str, ratio: int) -> pd.DataFrame:
    """One line for each person, of whom most is left first."""
    keys = study.winners[method, ratio]
    members, references = ([study.trials[k] for k in keys], study.yardsticks("reference", ratio))
    known, beside = (comparison.known_of(study, tuple(t.key for t in some), ratio) for some in (members, references))
    ways = list(_ways(study, method, members, references))
    out, out_control = (_leaked(study, label, ratio) for label in (method, "reference"))
    lines = []
    plain = [way for way in ways if not way.key]
    bound = max([study.margin, *(_apart(way.control[1]) for way in plain)])
    choices = _asked(study, members, "report")
    for person in known.index:
        asked = choices[choices["person"] == person]
        facts = int(asked["fact"].where(asked["fact"] != "", asked["answer"]).nunique())
        lines.append({
            "person": person, "known": known[person], "known_reference": beside.get(person, math.nan),
            "score": _of(plain[0].own[1], 0, person) if plain else math.nan,
            "reference_score": _of(plain[0].control[1], 0, person) if plain else math.nan,
            **_worst(ways, str(person)), "k": out.k, "leak": out.shares.get(person, math.nan),
            "leak_control": out_control.shares.get(person, math.nan), "questions": asked["question"].nunique(),
            "facts": facts, "smallest_leak": smallest_leak(facts),
        })  # fmt: skip
    found = pd.DataFrame(lines, columns=COLUMNS)
    found["stands_out"] = found["above_control"] > bound
    return found.sort_values(["above_control", "person"], ascending=[False, True], ignore_index=True)


def _worst(ways: Sequence[Way], person: str) -> dict[str, object]:
    """The way that gets most out of a model about a person."""
    there = [way for way in ways if not math.isnan(_beyond(way, person, "select") + _beyond(way, person, "report"))]
    if not there:
        return {"worst_attack": NO_ATTACK, "worst_attack_key": ""}
    worst = max(there, key=lambda way: _beyond(way, person, "select"))
    own, control = (_of(one[1], worst.step, person) for one in (worst.own, worst.control))
    mine = worst.rows[(worst.rows["person"] == person) & (worst.rows["step"] == worst.step)]
    asked = mine.pivot_table(values=worst.own[1].judged, index="question", columns="seed").dropna()
    _, low, high = mean(asked.to_numpy(dtype=float)).interval()
    return {"worst_score": own, "worst_low": low, "worst_high": high, "worst_attack": worst.name,
            "worst_attack_key": worst.key, "control": control, "above_control": own - control}  # fmt: skip


def _apart(references: Levels) -> float:
    """The most that one reference knows of anybody beyond the others; 0 with one, whose noise is not known."""
    values = references.ends(0, references.judged)[0][..., 1]
    seeds = values.shape[1]
    others = (values.sum(axis=1, keepdims=True) - values) / (seeds - 1) if seeds > 1 else values
    return float((values - others).max())


def _beyond(way: Way, person: str, half: Half) -> float:
    """What a model knows of a person more than the references."""
    own, control = (part[HALVES.index(half)] for part in (way.own, way.control))
    return _of(own, way.step, person) - _of(control, way.step, person)


def _of(found: Levels, step: int, person: str) -> float:
    """What is known of a person at a step, the mean over seeds; NaN where nothing was asked."""
    values, people = found.ends(step, found.judged)
    return float(values[people.get_loc(person), :, 1].mean()) if person in people else math.nan


def _ways(
    study: StudyResults, method: str, members: Sequence[TrialRecord], references: Sequence[TrialRecord]
) -> Iterator[Way]:
    """No attack, then every attack that all can be compared under."""
    rows = [_asked(study, some, half) for some in (members, references) for half in HALVES]
    first, own, second, control = (levels(part, HELD_OUT) for part in rows)
    if first and own and second and control:
        yield Way("", NO_ATTACK, 0, (first, own), (second, control), rows[1])
    tried = _worst_attack.trials(study)
    mine = tried[(tried["key"] == members[0].key) & (tried["state"] == "complete") & ~tried["duplicate"]]
    for key, name in zip(mine["attack"], mine["settings"], strict=True):
        case, beside = case_of(study, method, members, key), case_of(study, "reference", references, key)
        if case and beside and (step := stop(case, beside)) is not None:
            yield from _attacked(key, name, step, case, beside)


def _attacked(key: str, name: str, step: int, own: Attacked, control: Attacked) -> Iterator[Way]:
    mine, other = ((levels(case.select, HELD_OUT), levels_of(case, HELD_OUT)) for case in (own, control))
    if mine[0] and mine[1] and other[0] and other[1]:
        held_out = own.rows[own.rows["held_out"].isin(HELD_OUT)]
        yield Way(key, name, step, (mine[0], mine[1]), (other[0], other[1]), held_out)


def _asked(study: StudyResults, members: Sequence[TrialRecord], half: Half) -> pd.DataFrame:
    """The choices about the forgotten that every seed of a model was asked without an attack."""
    modalities = {modality for _, modality in forget_groups(study.goal)}
    parts = [rows.assign(seed=t.seed, step=0, held_out="person")
             for t in members if (rows := study.rows(t.key, half)) is not None]  # fmt: skip
    rows = pd.concat(parts, ignore_index=True)
    mine = (rows["role"] == "forget") & rows["modality"].isin(modalities) & (rows["task"] == "classification")
    return rows[mine]


class Leaked(NamedTuple):
    """Of each person the share of facts that sampled replies state, at the largest number of replies."""

    k: float
    shares: pd.Series[float]


def _leaked(study: StudyResults, label: str, ratio: int) -> Leaked:
    """leak@k of each person under the attack that samples replies; of several the one that gets most out."""
    found = leaks.facts(study)
    mine = found[(found["method"] == label) & (found["ratio"] == ratio)]
    if mine.empty:
        return Leaked(math.nan, pd.Series(dtype=float))
    most = mine["k"].max()
    return Leaked(float(most), leaks.by_person(mine[mine["k"] == most]).groupby("person").max())
