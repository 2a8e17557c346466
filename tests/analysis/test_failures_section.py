"""What ended badly is counted by kind, and what did not end in the last run is listed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.sections.failures import endings, parts, still_open
from analysis.study_folder import read
from analysis.tables import Table
from study.core.failures import Failure
from study.core.records import TrialRecord, read_record, write_record
from study.stages.launch import noted
from tests.helpers.planted import plant


@pytest.mark.slow
def test_results_of_failures_are_counted_by_kind(tmp_path: Path) -> None:
    root = plant(tmp_path)
    study = read(root)
    before = endings(study).set_index(["method", "ratio", "what", "ended"])["number"].to_dict()
    assert before["failing", 15, "trial", "failed"] == 1
    [path] = [study.folder.record(t.key) for t in study.trials.values() if t.state == "failed" and t.ratio == 15]
    write_record(path, replace(read_record(TrialRecord, path), failure="out of memory (device)"))
    after = endings(read(root)).set_index(["method", "ratio", "what", "ended"])["number"].to_dict()
    assert after["failing", 15, "trial", "out of memory (device)"] == 1
    assert sum(after.values()) == sum(before.values())


@pytest.mark.slow
def test_what_did_not_end_is_listed_with_its_traceback(tmp_path: Path) -> None:
    root = plant(tmp_path)
    assert still_open(read(root)).empty
    folder = read(root).folder
    told = noted(folder, "search", {"vkd 3 of 8": Failure("bug", "KeyError: 'a' (vkd.py:7)", "Traceback: all of it")})
    noted(folder, "attack", {"probe on vkd": Failure("worker lost", "gone")})
    left = still_open(read(root))
    assert left["job"].tolist() == ["probe on vkd", "vkd 3 of 8"]
    assert left["kind"].tolist() == ["worker lost", "bug"]
    assert left["trace"].iloc[0] == ""
    trace = folder.failures / left["trace"].iloc[1]
    assert trace.read_text() == "Traceback: all of it"
    assert told == {"vkd 3 of 8": f"bug: KeyError: 'a' (vkd.py:7); its traceback is in {trace}"}
    shown = [*parts(read(root))]
    assert any(isinstance(part, str) and part.startswith("2 jobs failed by accident") for part in shown)
    assert [part.name for part in shown if isinstance(part, Table)] == ["failures", "open"]
