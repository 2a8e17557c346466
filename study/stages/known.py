"""The questions that vanilla knows: counted for the gate, and, with `--measure known`, the only ones that are asked.

Chosen on vanilla and the references alone, before any method is tried, and in both halves alike. The rows of these
models are kept whole, as `whole_select` and `whole_report`; what everything else reads are the rows of what counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from study.core.files import write_json
from study.core.hashing import Json
from study.core.layout import StudyFolder
from study.core.records import KnownRecord, read_known, to_json
from study.core.rows import read_rows, write_rows
from study.core.terms import HALVES, Group
from study.experiment.context import StudyContext
from study.metrics.known import Known, counted, unknown
from study.metrics.objectives import forget_groups
from study.metrics.verdicts import tellable
from study.stages.manifest import has_begun
from study.stages.plan import Plan


@dataclass(frozen=True)
class Told:
    """What vanilla knows of what must go at one ratio."""

    dropped: frozenset[str]
    """The questions that it does not know."""
    all: Known
    groups: Mapping[Group, Mapping[str, int]]
    """The known choices of each group and half."""
    tellable: float
    """The recovery that a verdict can tell from none if only people who are known count; NaN for too few."""

    @property
    def sentence(self) -> str:
        """The counts, and what they can tell."""
        known, told = self.all, "nothing can be told of so few"
        if self.tellable < 1:
            told = f"a recovery of {self.tellable:.2f} can be told"
        return (
            f"vanilla knows {known.people} of {known.of_people} forget people and {known.questions} of "
            f"{known.of_questions} questions about them, the references do not: {told}"
        )

    @property
    def content(self) -> Json:
        """As it is written down."""
        tellable = None if math.isnan(self.tellable) else self.tellable
        return to_json(KnownRecord(tuple(sorted(self.dropped)), *self.all, tellable))

    @property
    def missing(self) -> list[str]:
        """The groups of which nothing is known in one of the halves, so that no gap can be measured."""
        return [" ".join(group) for group, halves in self.groups.items() if not all(map(halves.get, HALVES))]


def known_at(plan: Plan, ratio: int, asked: Sequence[pd.DataFrame]) -> Told:
    """What vanilla knows better than every reference, of what must go at a ratio, by all that these were asked."""
    vanilla, *references = asked
    there: set[Group] = set(zip(vanilla["role"], vanilla["modality"], strict=True))
    groups = [group for group in forget_groups(plan.study.goal, there) if group in there]
    dropped = _settled(plan, ratio)
    if dropped is None:
        dropped = unknown(vanilla, references, groups)
    kept = vanilla[(vanilla["task"] == "classification") & ~vanilla["question"].isin(dropped)]
    found = {g: kept[(kept["role"] == g[0]) & (kept["modality"] == g[1])]["half"].value_counts() for g in groups}
    counts = counted(vanilla, dropped, groups)
    most = tellable(counts.people, 1 + plan.study.confirm_seeds, plan.study.references)
    halves = {group: {str(half): int(n) for half, n in sizes.items()} for group, sizes in found.items()}
    return Told(dropped, counts, halves, most)


def _settled(plan: Plan, ratio: int) -> frozenset[str] | None:
    """The questions that do not count in a search that has begun with only what is known; None if it has not."""
    if not (plan.folder.unknown.exists() and has_begun(plan.folder)):
        return None
    noted = read_known(plan.folder).get(ratio)
    return frozenset(noted.dropped) if noted else None


def asked_rows(folder: StudyFolder, key: str) -> pd.DataFrame:
    """All that vanilla or a reference was asked, whether it counts or not."""
    return pd.concat([read_rows(_whole(folder, key, half)) for half in HALVES], ignore_index=True)


def measured(plan: Plan, context: StudyContext, known: Mapping[int, Told]) -> StudyContext:
    """The context in which only what counts is asked; rows and the list of what does not count are written first.

    `known` is what vanilla knows at each ratio. Once a search has begun they stay as they are, and are only written
    again if they are gone.
    """
    only_known, begun = plan.study.measure == "known", has_begun(plan.folder)
    told = known if only_known else {}
    if not (begun and plan.folder.unknown.exists()):
        write_json(plan.folder.unknown, {str(ratio): one.content for ratio, one in told.items()})
    for ratio in plan.study.forget_ratios if only_known or not begun else ():
        _narrow(plan, ratio, told[ratio].dropped if ratio in told else frozenset())
    return replace(context, only_known=only_known)


def _narrow(plan: Plan, ratio: int, dropped: frozenset[str]) -> None:
    """Write the rows of what counts beside those of all, or put these back if all counts."""
    folder = plan.folder
    for trial, half in itertools.product(plan.baselines(ratio), HALVES):
        rows, whole = folder.rows(trial.key, half), folder.rows(trial.key, f"whole_{half}")
        if dropped and not whole.exists():
            write_rows(whole, read_rows(rows))
        if whole.exists():
            every = read_rows(whole)
            counting = every[~every["question"].isin(dropped)].reset_index(drop=True)
            if not counting.equals(read_rows(rows)):
                write_rows(rows, counting)


def _whole(folder: StudyFolder, key: str, half: str) -> Path:
    whole = folder.rows(key, f"whole_{half}")
    return whole if whole.exists() else folder.rows(key, half)
