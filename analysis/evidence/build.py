"""The folder of the evidence on one winner: page, record, people and statement."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from analysis.evidence.numbers import numbers
from analysis.evidence.page import render
from analysis.evidence.people import COLUMNS
from analysis.evidence.statement import statement
from analysis.study_folder import StudyResults
from analysis.tables import as_csv, keep
from study.core.erasure import holdings
from study.core.files import read_json, write_json
from study.core.hashing import Json
from study.core.layout import EvidenceFolder

TABLE = "people.csv"
"""The table of people, beside the page."""


def build(study: StudyResults, name: str, to: Path | None = None) -> EvidenceFolder:
    """Write the evidence on the winner with this name. Raises `ValueError` as `numbers` does."""
    evidence = numbers(study, name)
    found = holdings(study.folder, evidence["model"]["keys"], [(study.goal, evidence["ratio"])])
    evidence["manifest"] = [asdict(hold) for hold in found]
    there = EvidenceFolder(to or study.folder.evidence(name))
    write_json(there.record, evidence)
    people = there.root / TABLE
    keep(people, as_csv(pd.DataFrame(evidence["people"], columns=COLUMNS)))
    keep(there.page, render(evidence))
    write_json(there.statement, statement(study.folder, evidence, (there.record, people, there.page)))
    return there


def reopen(there: EvidenceFolder) -> Json:
    """Make the page anew of the record alone, as after a purge; the record."""
    evidence: Json = read_json(there.record)
    keep(there.page, render(evidence))
    return evidence
