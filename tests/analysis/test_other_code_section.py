"""What was computed by several states of its code is counted; what was not is not shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.sections.other_code import codes, parts
from analysis.study_folder import read
from analysis.tables import Table
from study.core.provenance import Origin
from study.core.records import TrialRecord, read_record, write_record
from tests.helpers.planted import plant

ONE = Origin("a" * 40, {}, "Abacus", "", "float32", 1, "1" * 64)


@pytest.mark.slow
def test_only_what_has_several_codes_is_counted(tmp_path: Path) -> None:
    root = plant(tmp_path)
    paths = read(root).folder.trial_records()
    method = next(t for path in paths if (t := read_record(TrialRecord, path)).kind == "method").method
    left = 2
    for path in paths:
        trial = read_record(TrialRecord, path)
        mine = trial.method == method and left > 0
        left -= mine
        write_record(path, replace(trial, origin=replace(ONE, code="2" * 64) if mine else ONE))
    study = read(root)
    found = codes(study)
    total = sum(trial.method == method for trial in study.trials.values())
    assert set(found["what"]) == {parts_of := found["what"].iloc[0]}
    assert parts_of.startswith("trial of ")
    assert dict(zip(found["code"].str[0], found["results"], strict=True)) == {"1": total - 2, "2": 2}
    sentence, table = parts(study)
    assert str(sentence).startswith("Some results were computed by another state of their code")
    assert isinstance(table, Table)


@pytest.mark.slow
def test_one_code_or_none_that_is_known_shows_nothing(tmp_path: Path) -> None:
    root = plant(tmp_path)
    assert list(parts(read(root))) == []
    for path in read(root).folder.trial_records():
        write_record(path, replace(read_record(TrialRecord, path), origin=ONE))
    assert list(parts(read(root))) == []
