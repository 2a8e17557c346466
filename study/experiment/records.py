"""The record that ends a trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from study.core.files import read_json, write_json
from study.core.hashing import Json, canonical
from study.core.layout import StudyFolder
from study.core.plugins import name_of
from study.engine.world import world
from study.experiment.trial_spec import Trial

State = Literal["complete", "diverged", "failed"]


def existing_record(folder: StudyFolder, trial: Trial) -> Json | None:
    """The record of a trial that has ended, or None."""
    path = folder.record(trial.key)
    return read_json(path) if path.exists() else None


def keep_record(
    folder: StudyFolder,
    trial: Trial,
    state: State,
    reason: str,
    *,
    instruction: str = "",
    cost: Mapping[str, float],
    chunks: int = 1,
) -> Json:
    """Write a trial's record, which ends the trial: from now on it is never run again."""
    record = {
        "key": trial.key,
        "state": state,
        "reason": reason,
        "method": trial.name or name_of(trial.method),
        "hyperparameters": canonical(trial.method),
        "instruction": instruction,
        "goal": trial.goal,
        "ratio": trial.ratio,
        "seed": trial.seed,
        "start": {"kind": trial.start.kind, "key": trial.start.key},
        "chunks": chunks,
        "processes": world().size,
        "cost": dict(cost),
    }
    write_json(folder.record(trial.key), record)
    return record


def is_complete(folder: StudyFolder, trial: Trial) -> bool:
    """Whether a trial has ended well."""
    path = folder.record(trial.key)
    return path.exists() and bool(read_json(path)["state"] == "complete")
