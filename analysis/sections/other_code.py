"""Code: which results were computed by several states of the code of their method, their attack or the teaching."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pandas as pd

from analysis import naming
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.tables import Table
from study.core.provenance import Origin
from study.core.records import LearnedRecord, read_record

COLUMNS = ["what", "code", "revision", "results"]


def parts(study: StudyResults) -> Iterator[Part]:
    """A sentence and the counts, where something was computed by several; nothing else."""
    found = codes(study)
    if len(found):
        yield (
            "Some results were computed by another state of their code than others of their kind, which may make more "
            "than a difference in rounding. With --strict-code no study is continued by other code or versions."
        )
        short = found.assign(code=found["code"].str[:12], revision=found["revision"].str[:12])
        yield Table("code", "Results by several states of their code", "The digest covers the method or the attack and "
                    "all that computes its results.", found, short.astype(str), folded=True)  # fmt: skip


def codes(study: StudyResults) -> pd.DataFrame:
    """The number of results of each code, of what has several; records that do not say by which are not counted."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for what, origin in _origins(study):
        if origin and origin.code:
            counts[what, origin.code, origin.revision] += 1
    lines = pd.DataFrame([(*what, number) for what, number in sorted(counts.items())], columns=COLUMNS)
    return lines[lines.groupby("what")["code"].transform("nunique") > 1].reset_index(drop=True)


def _origins(study: StudyResults) -> Iterator[tuple[str, Origin | None]]:
    for path in study.folder.learned_records():
        learned = read_record(LearnedRecord, path)
        yield f"learned {learned.kind}", learned.origin
    for key, trial in study.trials.items():
        yield f"trial of {naming.method(trial.label)}", trial.origin
        for attack in study.attacks(key).values():
            links = " then ".join(link["type"] for link in attack.record.settings.get("links", ()))
            yield f"attack {links or naming.words(attack.record.attack)}", attack.record.origin


SECTION = Section("Code", 151, parts)
