"""Failures: how trials and attacks ended that did not end well, by kind, and what is still open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pandas as pd

from analysis import naming
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.tables import Table
from study.core.records import FailureRecord, read_record, to_json

COLUMNS = ["stage", "job", "kind", "message", "trace"]


def parts(study: StudyResults) -> Iterator[Part]:
    """What ended badly by kind, then what did not end; nothing where all ended well."""
    ended = endings(study)
    if len(ended):
        yield Table(
            "failures", "What did not end well",
            "A result each: it is not tried again. Refused: the method or the attack says that it cannot be done with "
            "these settings. Diverged: a trial has no model then, an attack has its rows until there. Failed: as older "
            "studies say it, whatever it was.",
            ended, ended.assign(method=ended["method"].map(naming.method)),
        )  # fmt: skip
    left = still_open(study)
    if len(left):
        yield (
            f"{len(left)} jobs failed by accident in the last run and are still to be done: the same command tries "
            "them again. No number here is of them."
        )
        yield Table("open", "Still to be done", "Tracebacks lie in the folder failures of the study.", left, left)


def endings(study: StudyResults) -> pd.DataFrame:
    """The numbers of trials and attacks by method, ratio and how they ended, without those that ended well."""
    found: Counter[tuple[str, int, str, str]] = Counter()
    for key, trial in study.trials.items():
        if trial.state not in ("complete", "stopped"):
            found[trial.label, trial.ratio, "trial", trial.failure or trial.state] += 1
        for attack in study.attacks(key).values():
            if attack.record.reason:
                ended = (attack.record.failure or "failed") if attack.record.failed is not None else "diverged"
                found[trial.label, trial.ratio, f"attack {attack.record.attack}", ended] += 1
    lines = [(*what, count) for what, count in sorted(found.items())]
    return pd.DataFrame(lines, columns=["method", "ratio", "what", "ended", "number"])


def still_open(study: StudyResults) -> pd.DataFrame:
    """The jobs that did not end in the last run, by stage and name."""
    records = [read_record(FailureRecord, path) for path in study.folder.failure_records()]
    lines = [{"trace": "", **to_json(record)} for record in records]
    return pd.DataFrame(lines, columns=COLUMNS).sort_values(["stage", "job"], ignore_index=True)


SECTION = Section("Failures", 108, parts)
