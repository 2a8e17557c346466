"""Which attacks a study holds: a fixed suite that is run on all, and those that an attack search proposed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pandas as pd

from analysis import naming
from analysis.sections import _levels
from analysis.sections._levels import Levels
from analysis.study_folder import Attack, StudyResults
from study.core.records import TrialRecord
from study.core.terms import HALVES, Goal, Half
from study.metrics import recovery
from study.metrics.objectives import forget_groups

NEEDED = ("question", "person", "modality", *recovery.COLUMNS)
"""Columns that tables of attacks read: all thirty take three times as long to read and to choose among."""
COURSES = ("schedule", "percents", "scales")
"""Settings of attacks whose stages go on from one another: steps of training, the way to the base model, adapters."""


@dataclass(frozen=True, eq=False)
class Attacked:
    """The rows of one attack on all trials (seeds) of one model, and what the attack gained and left at each step."""

    label: str
    ratio: int
    attack: str
    settings: str
    members: tuple[TrialRecord, ...]
    rows: pd.DataFrame
    """Those that count, with the `seed` of each trial."""
    select: pd.DataFrame
    """Those of the validation half on what was held out, with the `seed` of each trial."""
    gains: Mapping[Half, Sequence[pd.Series[float]]]
    """Of each trial the gain on each half; that on the validation half says where the attacker stops."""
    left: Mapping[Half, Sequence[pd.Series[float]]]
    """Of each trial the fraction of retain accuracy that is left, on each half."""
    weights: bool
    """Whether the attack changes weights: one on the input alone cannot ruin a model."""
    goes_on: bool
    """Whether each stage goes on from the one before, as steps of training do; else each is a way of its own."""
    flops: float
    """Floating-point operations of the attacker, the mean over trials; NaN where they were not counted."""


@lru_cache(maxsize=4)
def names(study: StudyResults) -> dict[str, str]:
    """Every attack of the study by its key, named by what tells it from all others of its kind."""
    return naming.differing({key: told(a) for key, a in _all(study).items()})


@lru_cache(maxsize=4)
def suite(study: StudyResults) -> dict[str, str]:
    """The attacks of the fixed suite by key, named by what differs among them alone.

    An attack search starts with an attack of the suite, so its first trial belongs to the suite.
    """
    return naming.differing(tellings(study))


def tellings(study: StudyResults) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """The attacks of the fixed suite by key, each as its kind and settings."""
    asked = [p for mine in study.attack_proposals.values() for p in mine]
    searched = {p.attack for p in asked} - {p.attack for p in asked if p.number == 0}
    return {key: told(a) for key, a in _all(study).items() if key not in searched}


@lru_cache(maxsize=4)
def kinds(study: StudyResults) -> dict[str, str]:
    """The kind of every attack by its key, such as `relearning` or `swap back then quantization`."""
    return {key: told(a)[0] for key, a in _all(study).items()}


def told(attack: Attack) -> tuple[str, Mapping[str, Any]]:
    """The kind of an attack and its settings. Composed ones are of one kind if their links are, in the same order;
    each setting is then named with its link, and with the number of the link where there are two of a kind."""
    links = attack.record.settings.get("links")
    if links is None:
        return attack.record.attack, attack.record.settings
    kinds = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", link["type"]).lower() for link in links]
    numbered = [f"{kind} {at}" if kinds.count(kind) > 1 else kind for at, kind in enumerate(kinds, 1)]
    settings = {
        f"{kind} {name}": value
        for kind, link in zip(numbered, links, strict=True)
        for name, value in naming.leaves(link).items()
    }
    return " then ".join(kinds), settings


@lru_cache(maxsize=4)
def samplers(study: StudyResults) -> frozenset[str]:
    """The keys of the attacks that sample replies: their steps are numbers of replies."""
    return frozenset(key for key, attack in _all(study).items() if last_link(attack).get("type") == "SampledExtraction")


def last_link(attack: Attack) -> Mapping[str, Any]:
    """The settings of an attack; of composed ones those of the last, whose stages are scored."""
    settings = attack.record.settings
    found: Mapping[str, Any] = (settings.get("links") or [settings])[-1]
    return found


@lru_cache(maxsize=1)
def attacked(study: StudyResults) -> tuple[Attacked, ...]:
    """Every attack of the suite on vanilla, the reference and every winner, by ratio."""
    return tuple(_attacked(study))


def _attacked(study: StudyResults) -> Iterator[Attacked]:
    found = suite(study)
    for ratio in study.ratios:
        for label, members in study.labelled(ratio):
            for key, name in found.items():
                if case := case_of(study, label, members, key):
                    yield replace(case, settings=name)


def case_of(study: StudyResults, label: str, members: Sequence[TrialRecord], attack: str) -> Attacked | None:
    """One attack, named among all, on all trials (seeds) that stand for one model and met it; none if none did."""
    return _case(study, label, tuple(trial.key for trial in members), attack)


@lru_cache(maxsize=256)
def _case(study: StudyResults, label: str, keys: Sequence[str], attack: str) -> Attacked | None:
    hits = [(study.trials[key], hit) for key in keys if (hit := finished(study, key, attack))]
    if not hits:
        return None
    runs = [hit.rows(NEEDED).assign(seed=t.seed) for t, hit in hits]
    return Attacked(
        label, hits[0][0].ratio, attack, names(study)[attack], tuple(t for t, _ in hits),
        counted(pd.concat(runs, ignore_index=True), study.goal),
        pd.concat([recovery.held_out(rows, "select") for rows in runs], ignore_index=True),
        {half: [recovery.gains(rows, half) for rows in runs] for half in HALVES},
        {half: [recovery.kept(rows, half) for rows in runs] for half in HALVES},
        weights=any(hit.record.weights for _, hit in hits),
        goes_on=any(name in last_link(hits[0][1]) for name in COURSES), flops=work([hit for _, hit in hits]),
    )  # fmt: skip


@lru_cache(maxsize=1024)
def levels_of(case: Attacked, groups: tuple[str, ...]) -> Levels | None:
    """What is known of each person under an attack on some groups of questions; None where there are none."""
    return _levels.levels(case.rows, groups)


def finished(study: StudyResults, trial: str, attack: str) -> Attack | None:
    """An attack on a trial, if it has rows."""
    found = study.attacks(trial).get(attack)
    return found if found is not None and found.state == "complete" else None


def counted(rows: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """The rows that count, with the group they belong to in `held_out`. An attack asks of one kind of task only."""
    modalities = {modality for _, modality in forget_groups(goal)}
    chosen = (rows["role"] == "forget") & rows["modality"].isin(modalities)
    rows = rows[chosen]
    if (rows["half"] == "report").any():
        rows = rows[rows["half"] == "report"]
    return rows.assign(held_out=rows["held_out"].where(rows["held_out"] != "", "seen"))


def stop(case: Attacked, control: Attacked | None) -> int | None:
    """The step at which the attacker stops, beside the control; None without one that was attacked as well."""
    return recovery.stopping_step(above(case, control, "select")) if control else None


def above(case: Attacked, control: Attacked, half: Half) -> pd.Series[float]:
    """The gain above control on one half at each step."""
    return recovery.gains_above(case.gains[half], control.gains[half])


def kept(case: Attacked, half: Half, step: int | None) -> float:
    """The fraction of retain accuracy that is left at a step: the mean over the seeds that were taken to it.

    Without a step each counts at its own last one. NaN where no such question was asked.
    """
    there = [
        float(one.iloc[-1] if step is None else one[step]) for one in case.left[half] if step is None or step in one
    ]
    return math.fsum(there) / len(there) if there else math.nan


def work(hits: Sequence[Attack]) -> float:
    """What an attack cost its attacker in floating-point operations: the mean over the models that it met."""
    known = [hit.record.flops for hit in hits if hit.record.flops is not None]
    return math.fsum(known) / len(known) if known else math.nan


def _all(study: StudyResults) -> dict[str, Attack]:
    return {key: attack for trial in study.trials for key, attack in study.attacks(trial).items()}
