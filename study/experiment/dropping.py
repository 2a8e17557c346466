"""Weights that nobody will ask for again: `--keep winners` deletes them; records and rows stay."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from study.core.files import write_json, writes
from study.core.layout import StudyFolder
from study.core.records import TrialRecord, read_record
from study.experiment.trial_spec import Trial
from study.metrics.objectives import distance_to_ideal, front, nearest_first
from study.model.tensor_files import remove_tensors


def beaten(ended: Mapping[Trial, Mapping[str, float]], default: Trial, race: int) -> list[Trial]:
    """The trials of a method at one ratio whose weights can go while it is searched, given their objectives.

    Those of the best few that will `race` stay, and the default's, with which tuning is compared. A later trial never
    makes another win: it would have to become nearer to the ideal. Where recovery is an objective, the whole front is
    attacked, so all of it stays.
    """
    order = nearest_first({t: distance_to_ideal(**values) for t, values in ended.items()})
    fronted = set(front({t.key: values for t, values in ended.items() if "recovery" in values}))
    return [t for t in order[race:] if t != default and t.key not in fronted]


def drop_weights(folder: StudyFolder, key: str) -> None:
    """Delete the weights of a trial, and leave a note that they were."""
    weights = folder.delta(key)
    if writes() and weights.exists():
        write_json(folder.dropped(key), {"dropped": "--keep winners"})
        remove_tensors(weights)


def drop_losers(folder: StudyFolder, kept: Collection[str]) -> None:
    """Delete the weights of all trials of methods but those with the keys in `kept`."""
    for path in folder.trial_records():
        record = read_record(TrialRecord, path)
        if record.kind == "method" and record.key not in kept:
            drop_weights(folder, record.key)
