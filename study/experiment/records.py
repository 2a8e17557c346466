"""The records that end learning and trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from study.core.failures import Refusal
from study.core.hashing import canonical
from study.core.layout import StudyFolder
from study.core.plugins import name_of
from study.core.provenance import Origin
from study.core.records import (
    LearnedRecord,
    RungScore,
    Start,
    TrialRecord,
    TrialState,
    existing,
    write_record,
)
from study.engine.world import world
from study.experiment.trial_spec import Learned, Trial
from study.model.loading import Loading


def learned_record(
    learned: Learned,
    loading: Loading,
    sha256: Mapping[str, str],
    *,
    seconds: float = 0.0,
    chunks: int = 1,
    origin: Origin | None = None,
) -> LearnedRecord:
    """The record of a model taught in so many chunks by the processes of this world; `origin` if it was taught here."""
    how: dict[str, Any] = {"seconds": seconds, "chunks": chunks, "processes": world().size, "origin": origin}
    return LearnedRecord(**canonical(learned), **asdict(loading), **how, key=learned.key, sha256=sha256)


def existing_record(folder: StudyFolder, trial: Trial) -> TrialRecord | None:
    """The record of a trial that has ended, or None."""
    return existing(TrialRecord, folder.record(trial.key))


def existing_records(folder: StudyFolder, keys: Iterable[str]) -> list[TrialRecord]:
    """The records of those trials that have ended."""
    return [record for key in keys if (record := existing(TrialRecord, folder.record(key)))]


def keep_record(
    folder: StudyFolder,
    trial: Trial,
    state: TrialState,
    reason: str,
    *,
    failure: Refusal = "",
    instruction: str = "",
    cost: Mapping[str, float],
    chunks: int = 1,
    rungs: Sequence[RungScore] = (),
    origin: Origin | None = None,
) -> TrialRecord:
    """Write a trial's record, which ends the trial: it is never run again."""
    record = TrialRecord(
        key=trial.key,
        state=state,
        reason=reason,
        failure=failure,
        method=trial.name or name_of(trial.method),
        hyperparameters=canonical(trial.method),
        instruction=instruction,
        goal=trial.goal,
        ratio=trial.ratio,
        seed=trial.seed,
        start=Start(trial.start.kind, trial.start.key),
        chunks=chunks,
        processes=world().size,
        cost=dict(cost),
        rungs=tuple(rungs),
        origin=origin,
    )
    write_record(folder.record(trial.key), record)
    return record


def is_complete(folder: StudyFolder, trial: Trial) -> bool:
    """Whether a trial has ended well."""
    record = existing_record(folder, trial)
    return record is not None and record.state == "complete"
