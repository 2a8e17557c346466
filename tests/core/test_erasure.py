"""Of every kind of file it is decided whether it may still hold the forgotten, and a purge removes just those."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from study.core import erasure, inventory
from study.core.errors import Purged
from study.core.files import read_json, write_json
from study.core.layout import StudyFolder
from study.core.records import LearnedRecord, write_record
from study.core.terms import Goal

HOLDS = {
    "data/made/Test_Set/a.parquet": erasure.BENCHMARK,
    "learned/v/model/model.safetensors": erasure.VANILLA,
    "learned/v/model/config.json": erasure.VANILLA,
    "learned/r10/model/model.safetensors": erasure.OTHER_REFERENCE,
    "learned/begun/model.safetensors": erasure.UNFINISHED,
    "learned/begun/progress.json": erasure.UNFINISHED,
    "trials/other/delta.safetensors": erasure.OTHER_TRIAL,
    "trials/won/rows/report.parquet": erasure.REASONS["rows"],
    "trials/won/attacks/a.parquet": erasure.REASONS["rows"],
    "trials/won/metric_check/plain.parquet": erasure.REASONS["rows"],
    "trials/won/sequence/2.json": erasure.REASONS["people"],
    "near.json": erasure.REASONS["people"],
    "cache/k/saliency-x.safetensors": erasure.REASONS["cache"],
    "report/tables/most_known.csv": erasure.REASONS["report"],
    "ray/search/state.json": erasure.REASONS["logs"],
    "failures/f.txt": erasure.REASONS["logs"],
    "trials/won/rows/.report.parquet.x.draft": erasure.REASONS["draft"],
    "learned/v/.model.x/model.safetensors": erasure.REASONS["draft"],
    "exports/other/model.safetensors": erasure.OTHER_EXPORT,
    "trials/notes": erasure.UNKNOWN,
    "mine.txt": erasure.UNKNOWN,
    ".env": erasure.UNKNOWN,
}
NOBODY = (
    "study.json", "winners.json", "race.json", "files.json", "base_check.json", ".lock", "unknown.json",
    "data/base.json", "data/tiny/model.safetensors", "learned/v/learned.json", "learned/v/curve.json",
    "learned/r10/learned.json", "learned/r15/learned.json", "trials/won/delta.safetensors",
    "trials/won/delta.sha256.json", "trials/won/trial.json", "trials/other/trial.json", "trials/won/attacks/a.json",
    "trials/won/rows/report.json", "exports/won/model.safetensors", "search/vkd/0000.json",
    "attack_search/won/relearning/0000.json", "evidence/vkd@15/evidence.json",
)  # fmt: skip
OF_THE_REQUEST = "learned/r15/model/model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study with a file of every kind."""
    folder = StudyFolder(tmp_path / "study")
    for name in (*HOLDS, *NOBODY, OF_THE_REQUEST):
        write_json(folder.root / name, {} if name in ("study.json", "unknown.json") else {"path": "data/tiny"})
    learned: tuple[tuple[str, Any, int | None], ...] = (
        ("v", "vanilla", None),
        ("r10", "reference", 10),
        ("r15", "reference", 15),
    )
    for key, kind, ratio in learned:
        record = LearnedRecord(key, kind, "b", "b", "visual", ratio, {}, ("llm",), 0, {}, 1.0)
        write_record(folder.learned_record(key), record)
    return folder


def found(folder: StudyFolder, goal: Goal = "full", ratios: Sequence[int] = (15,)) -> dict[str, str]:
    return {hold.name: hold.reason for hold in erasure.holdings(folder, ["won"], [(goal, one) for one in ratios])}


def test_every_kind_of_file_is_told_apart(folder: StudyFolder) -> None:
    assert found(folder) == HOLDS


def test_a_reference_that_was_taught_texts_holds_them(folder: StudyFolder) -> None:
    assert found(folder, "visual") == {**HOLDS, OF_THE_REQUEST: erasure.TEXT_REFERENCE}


def test_the_reference_of_one_request_holds_whom_another_covers(folder: StudyFolder) -> None:
    assert found(folder, ratios=(15, 10)) == {**HOLDS, OF_THE_REQUEST: erasure.OTHER_REFERENCE}


def test_settings_that_quote_skipped_rows_hold_them(folder: StudyFolder) -> None:
    write_json(folder.settings, {"skipped": {"all": ["row 3: Ada has no picture"]}})
    assert found(folder) == {**HOLDS, "study.json": erasure.SKIPPED}


def test_a_link_is_removed_and_what_it_leads_to_stays(folder: StudyFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    link = folder.cache("k") / "linked.safetensors"
    link.symlink_to(tmp_path / "elsewhere")
    erasure.purge(folder, erasure.holdings(folder, ["won"], [("full", 15)]))
    assert not link.is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "x"


def test_a_link_to_a_folder_is_listed_and_not_removed(folder: StudyFolder, tmp_path: Path) -> None:
    write_json(tmp_path / "elsewhere" / "model.safetensors", {})
    link = folder.learned("moved")
    link.symlink_to(tmp_path / "elsewhere")
    listed = erasure.holdings(folder, ["won"], [("full", 15)])
    assert [hold for hold in listed if hold.name not in HOLDS] == [
        erasure.Holding("learned/moved", erasure.LINK, 0, "", removable=False)
    ]
    erasure.purge(folder, listed)
    assert (link / "model.safetensors").exists()
    assert "learned/moved" not in {hold["name"] for hold in read_json(folder.purged)["removed"]}


def test_a_purge_is_dated_when_files_were_last_removed(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()
    monkeypatch.setattr(erasure, "now", lambda: f"call {next(calls)}")
    dates = []
    for left in ("report/a.csv", "", "report/b.csv"):
        if left:
            write_json(folder.root / left, {})
        erasure.purge(folder, erasure.holdings(folder, ["won"], [("full", 15)]))
        dates.append(read_json(folder.purged)["at"])
    assert dates[0] == dates[1] != dates[2]


def test_a_purge_removes_what_is_listed_and_nothing_else(folder: StudyFolder) -> None:
    erasure.check(folder)
    listed = erasure.holdings(folder, ["won"], [("full", 15)])
    erasure.purge(folder, listed)
    left = {path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*") if path.is_file()}
    assert left == {*NOBODY, OF_THE_REQUEST, "trials/notes", "mine.txt", ".env", "evidence/purged.json"}
    assert not (folder.root / "cache").exists()
    removed = {hold["name"]: hold["sha256"] for hold in read_json(folder.purged)["removed"]}
    assert removed == {hold.name: hold.sha256 for hold in listed if hold.removable}
    for reads in (erasure.check, inventory.check, inventory.lost, inventory.problems):
        with pytest.raises(Purged, match=f"{len(removed)} files that held the forgotten were removed on purpose"):
            reads(folder)
