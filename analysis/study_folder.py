"""A study folder as typed values: what was asked, what was proposed, what ran, what was attacked.

Reads only; missing parts are empty, damaged parts raise `Damaged` that names the file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from study.core import inventory
from study.core.errors import Damaged
from study.core.files import read_json
from study.core.layout import StudyFolder, rows_beside, search_name
from study.core.records import (
    AttackProposal,
    AttackRecord,
    AttackState,
    KnownRecord,
    LearnedRecord,
    MethodProposal,
    ModelKind,
    SequenceRecord,
    TrialRecord,
    read_known,
    read_near,
    read_record,
    read_study,
    read_winners,
    state_of_attack,
)
from study.core.rows import read_rows
from study.core.terms import BASE_MODEL, Goal
from study.metrics.scored import Scored
from study.metrics.verdicts import MARGIN

SAME = ("model", "vanilla", "reference", "benchmark", "fingerprint", "goal", "forget_ratios", "forget_attributes",
        "robustness", "attack_keeps", "measure", "scored_error", "learn", "learn_parts", "seed", "lookahead", "sampler",
        "startup_trials", "early_stopping", "collapse_floor", "race")  # fmt: skip
"""The settings that make a search what it is: those in which a study and the same begun cold agree."""
KEEPS = 0.5
"""Least part of the retain accuracy that an attack must leave, where the settings do not say."""


@dataclass(frozen=True)
class Attack:
    """One attack on one trial, with the rows scored at each attack step."""

    key: str
    record: AttackRecord
    state: AttackState
    path: Path
    """Where its rows lie."""

    def rows(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of the rows, read anew each time: a search leaves too many to keep."""
        return read_rows(self.path, columns)


@dataclass(frozen=True)
class InTurn:
    """A method applied to several requests, one after another; a row's step says how many had been done."""

    requests: int
    record: SequenceRecord
    rows: pd.DataFrame = field(repr=False)


@dataclass(frozen=True, eq=False)
class StudyResults:
    """Everything the analysis reads of a study. Rows are read once and kept."""

    root: Path
    record: Mapping[str, Any]
    cold: StudyResults | None = None
    """The same study begun without a warm start, to compare with."""
    _rows: dict[Path, pd.DataFrame] = field(default_factory=dict, repr=False)
    _scored: dict[tuple[str, str], Scored] = field(default_factory=dict, repr=False)
    _attacks: dict[str, dict[str, Attack]] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> StudyFolder:
        """Where everything of the study lies."""
        return StudyFolder(self.root)

    @property
    def name(self) -> str:
        """The name of the study, by default that of its folder."""
        return str(self.record.get("name") or self.root.resolve().name)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The resolved settings of the study."""
        return dict(self.record.get("settings") or {})

    @property
    def goal(self) -> Goal:
        """What was to be forgotten. Raises `ValueError` for an unknown goal."""
        goal: Goal = self.settings.get("goal", "visual")
        if goal not in get_args(Goal):
            raise ValueError(f"{self.folder.settings}: goal {goal!r} is none of {', '.join(get_args(Goal))}")
        return goal

    @property
    def forget_attributes(self) -> tuple[str, ...]:
        """The attributes of the forget people that were to be forgotten; none if all were."""
        return tuple(map(str, self.settings.get("forget_attributes") or ()))

    @property
    def by_base_model(self) -> bool:
        """Whether the base model stands for the references of a model that was brought without any."""
        return bool(self.settings.get("reference") == BASE_MODEL)

    @cached_property
    def known(self) -> dict[int, KnownRecord]:
        """By ratio, of how many people and questions vanilla knows something, where only these count."""
        return read_known(self.folder)

    @property
    def attack_keeps(self) -> float:
        """The least part of its retain accuracy that an attacked model must keep."""
        return float(self.settings.get("attack_keeps", KEEPS))

    @property
    def margin(self) -> float:
        """Within what of the control's a gain counts as equivalent to retraining."""
        return float(self.settings.get("equivalence_margin", MARGIN))

    @cached_property
    def trials(self) -> dict[str, TrialRecord]:
        """All trials on disk by their key."""
        return {trial.key: trial for trial in (read_record(TrialRecord, path) for path in self.folder.trial_records())}

    @cached_property
    def proposals(self) -> list[MethodProposal]:
        """All proposals, by method and number. Without a mark, the first of each method and ratio is the default."""
        found: list[MethodProposal] = []
        defaulted: set[tuple[str, int]] = set()
        labels = {search_name(str(method)): str(method) for method in self.settings.get("methods", [])}
        for path in self.folder.proposals():
            method = labels.get(path.parent.name, path.parent.name)
            proposal = read_record(MethodProposal, path, method=method)
            group = (proposal.method, proposal.ratio)
            if proposal.default is None:
                proposal = replace(proposal, default=group not in defaulted)
            defaulted.add(group)
            found.append(proposal)
        return found

    @cached_property
    def winners(self) -> dict[tuple[str, int], tuple[str, ...]]:
        """The trials of each winner by (method, ratio): the one that was selected first, then its confirmations."""
        return {
            (method, ratio): trials
            for method, ratios in sorted(read_winners(self.folder).items())
            for ratio, trials in sorted(ratios.items())
            if trials
        }

    @cached_property
    def near(self) -> dict[int, frozenset[str]]:
        """The retained people nearest to the forget people, by ratio; empty if the study did not note them."""
        return {ratio: frozenset(itertools.chain(*found.values())) for ratio, found in read_near(self.folder).items()}

    @property
    def ratios(self) -> list[int]:
        """Every forget ratio in percent that was asked for or met on disk, ascending."""
        asked = {int(ratio) for ratio in self.settings.get("forget_ratios", [])}
        return sorted(asked | {trial.ratio for trial in self.trials.values()} | {p.ratio for p in self.proposals})

    @property
    def methods(self) -> list[str]:
        """Every method that was asked for, in that order, then others met on disk by name."""
        asked = [str(method) for method in self.settings.get("methods", [])]
        met = {t.method for t in self.trials.values() if t.kind == "method"} | {p.method for p in self.proposals}
        return asked + sorted(met - set(asked))

    def curve(self, key: str) -> list[float]:
        """The loss of every step of a trial; none if it trained nothing, or was run before losses were kept.

        Raises `Damaged` if the file holds something else.
        """
        path = self.folder.trial_curve(key)
        losses = read_json(path) if path.exists() else []
        if not isinstance(losses, list) or not all(isinstance(loss, float | int) for loss in losses):
            raise Damaged(f"{path} holds no losses")
        return losses

    def precision(self, trial: TrialRecord) -> str:
        """The precision of the model of a trial, such as `float32` or `bfloat16, LLM in nf4`; empty if not known."""
        path = self.folder.learned_record(trial.start.key)
        if not path.exists():
            return ""
        learned = read_record(LearnedRecord, path)
        return learned.dtype + (f", LLM in {learned.quantized}" if learned.quantized else "")

    def yardsticks(self, kind: ModelKind, ratio: int) -> list[TrialRecord]:
        """The complete vanilla or reference trials of one ratio, by seed."""
        found = [t for t in self.trials.values() if t.kind == kind and t.ratio == ratio and t.state == "complete"]
        return sorted(found, key=lambda trial: (trial.seed, trial.key))

    def labelled(self, ratio: int) -> Iterator[tuple[str, list[TrialRecord]]]:
        """Vanilla, reference and each winner of one ratio with the trials (seeds) that stand for it."""
        yield "vanilla", self.yardsticks("vanilla", ratio)
        yield "reference", self.yardsticks("reference", ratio)
        for method in self.methods:
            yield method, [self.trials[k] for k in self.winners.get((method, ratio), ()) if k in self.trials]

    def rows(self, key: str, name: str) -> pd.DataFrame | None:
        """Rows `name` (select, report, blind, released) of a trial, or None where they were not scored."""
        path = self.folder.rows(key, name)
        return self._kept(path) if path.exists() else None

    def scored(self, key: str, name: str) -> Scored | None:
        """The same rows for objectives, which ask the same of them again and again."""
        if (key, name) not in self._scored and (rows := self.rows(key, name)) is not None:
            self._scored[key, name] = Scored(rows)
        return self._scored.get((key, name))

    def attacks(self, key: str) -> Mapping[str, Attack]:
        """Every attack on a trial that ended, well or badly, by its key."""
        if key not in self._attacks:
            self._attacks[key] = {path.stem: _attack(path) for path in self.folder.attacks(key)}
        return self._attacks[key]

    @cached_property
    def attack_proposals(self) -> dict[str, list[AttackProposal]]:
        """What the attacker's search proposed against each trial, in turn: one of each of its searches, then again."""
        found: dict[str, list[AttackProposal]] = {}
        for path in self.folder.attack_proposals():
            target, search = path.parts[-3:-1]
            proposal = read_record(AttackProposal, path, target=target, search=search)
            found.setdefault(target, []).append(proposal)
        return {target: sorted(asked, key=lambda p: (p.number, p.search)) for target, asked in sorted(found.items())}

    def sequences(self, key: str) -> list[InTurn]:
        """A trial's method applied to several requests in turn, by their number."""
        return [
            InTurn(int(path.stem), read_record(SequenceRecord, path), self._kept(rows))
            for path in self.folder.sequences(key)
            if (rows := rows_beside(path)).exists()
        ]

    def _kept(self, path: Path) -> pd.DataFrame:
        if path not in self._rows:
            self._rows[path] = read_rows(path)
        return self._rows[path]


def read(root: Path, cold: Path | None = None, *, checked: bool = True) -> StudyResults:
    """Open a study folder, and that of the same study begun cold to compare with it.

    Its files are `checked` first, which reads all of them, unless the run that has just ended opens it.

    Raises `FileNotFoundError` with the remedy if one is none, `Damaged` if a file of it is not as the last run left it,
    and `ValueError` if they are not the same study.
    """
    folder = StudyFolder(root)
    if checked:
        inventory.check(folder)
    study = StudyResults(root, read_study(folder), read(cold) if cold else None)
    _check_cold(study)
    return study


def benchmark_kind(settings: Mapping[str, Any]) -> str:
    """The kind of the benchmark of a study, such as Mllmu; older studies name it before a colon. Empty if unknown."""
    asked = settings.get("benchmark") or ""
    return str(asked["type"] if isinstance(asked, Mapping) else str(asked).partition(":")[0])


def _attack(path: Path) -> Attack:
    rows = rows_beside(path)
    return Attack(path.stem, read_record(AttackRecord, path), state_of_attack(rows), rows)


def _check_cold(study: StudyResults) -> None:
    """Raise `ValueError` if the study that is compared is not the same one begun cold."""
    if study.cold is None:
        return
    if not study.record.get("warm_start"):
        raise ValueError(f"--cold {study.cold.root}: {study.root} began cold itself; leave --cold out")
    if study.cold.record.get("warm_start"):
        raise ValueError(f"--cold {study.cold.root} was itself begun with --warm-start; name one that was not")
    ours, theirs = study.settings, study.cold.settings
    other = [name for name in SAME if ours.get(name) != theirs.get(name)]
    starts, cold_starts = ours.get("defaults") or {}, theirs.get("defaults") or {}
    other += [f"defaults.{name}" for name in sorted({*starts} & {*cold_starts}) if starts[name] != cold_starts[name]]
    if other:
        raise ValueError(f"--cold {study.cold.root} is another study than {study.root}: {', '.join(other)} differ")
