"""What a purge refuses before it removes anything, and who refuses a study that was purged: of small files alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from study import purge, status
from study.core import erasure
from study.core.errors import Purged
from study.core.files import read_json, write_json
from study.core.hashing import Json
from study.core.layout import StudyFolder
from study.core.lock import locked
from study.presets import PRESETS
from study.stages import pipeline

NAME = "vkd@15"


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study with evidence on its one winner, whose seeds both have weights, and with a report that names people."""
    found = StudyFolder(tmp_path / "study")
    write_json(found.settings, {})
    for key in ("a", "b"):
        write_json(found.delta(key), {})
    write_json(found.winners, {"vkd": {"15": {"trials": ["a", "b"]}}})
    model, request = {"keys": ["a", "b"], "start": "vanilla"}, {"goal": "full"}
    record: Json = {"winner": NAME, "method": "vkd", "ratio": 15, "model": model, "request": request}
    write_json(found.evidence(NAME) / "evidence.json", record)
    write_json(found.report / "people.csv", {})
    return found


def refused(folder: StudyFolder, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What a purge says that removes nothing."""
    before = set(folder.root.rglob("*"))
    assert purge.main([str(folder.root), *more]) == 2
    assert set(folder.root.rglob("*")) - {folder.lock} == before - {folder.lock}
    return capsys.readouterr().err


def test_one_file_is_one(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert purge.main([str(folder.root)]) == 0
    assert "1 file, " in capsys.readouterr().out
    assert purge.main([str(folder.root), "--yes"]) == 0
    assert "1 file was removed, as " in capsys.readouterr().out
    assert purge.main([str(folder.root), "--yes"]) == 0
    assert "0 files were removed, as " in capsys.readouterr().out


@pytest.mark.parametrize("more", [(), ("--yes",)])
def test_evidence_on_a_model_that_wins_no_more_is_refused(
    more: tuple[str, ...], folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of the winner of now would be removed as another trial's."""
    write_json(folder.delta("c"), {})
    write_json(folder.winners, {"vkd": {"15": {"trials": ["c", "b"]}}})
    said = refused(folder, capsys, *more)
    assert f"the evidence on {NAME} is out of date" in said
    assert f"Run `mus evidence {folder.root} {NAME}` again" in said


def test_evidence_on_a_model_without_weights_is_refused(
    folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.delta("b").unlink()
    assert f"the weights of {NAME} are missing in trials b" in refused(folder, capsys, "--yes")
    write_json(folder.export("b") / "model.safetensors", {})
    assert purge.main([str(folder.root), "--yes"]) == 0


def test_what_is_no_study_is_not_told_to_make_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert purge.main([str(tmp_path / "nowhere"), "--yes"]) == 2
    assert "nowhere is not a study: it has no study.json; name a folder" in capsys.readouterr().err


def test_a_link_to_a_folder_is_refused(folder: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "elsewhere" / "select.parquet", {})
    folder.report.joinpath("moved").symlink_to(tmp_path / "elsewhere")
    assert "has links to other folders, which a purge does not enter: report/moved." in refused(folder, capsys, "--yes")
    assert purge.main([str(folder.root)]) == 0
    assert "report/moved" in capsys.readouterr().out


def test_what_is_removed_is_found_once_no_run_can_change_it(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that names another winner just before the lock is taken."""
    monkeypatch.setattr("study.core.lock.PAUSE", 0.0)
    with locked(folder):
        assert "is in use by" in refused(folder, capsys, "--yes")
    lock = locked

    def after_a_run(there: StudyFolder) -> Any:
        write_json(there.winners, {"vkd": {"15": {"trials": ["c", "b"]}}})
        return lock(there)

    monkeypatch.setattr(purge, "locked", after_a_run)
    assert "is out of date" in refused(folder, capsys, "--yes")


def test_a_study_that_is_purged_while_a_run_plans_is_not_run(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = dataclasses.replace(PRESETS["smoke"][1], study_dir=folder.root)

    def plan(*arguments: Any) -> Any:
        assert purge.main([str(folder.root), "--yes"]) == 0
        return dataclasses.make_dataclass("Plan", ["root"])(folder.root)

    monkeypatch.setattr(pipeline, "validate_study", plan)
    with pytest.raises(Purged):
        pipeline.run(study)


def test_a_study_that_is_purged_while_a_run_waits_is_not_made_anew(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where data are missing that the plan reads."""
    study = dataclasses.replace(PRESETS["smoke"][1], study_dir=folder.root)

    def lost(there: StudyFolder) -> list[str]:
        erasure.purge(there, [])
        return ["data/base.json"]

    monkeypatch.setattr("study.core.inventory.lost", lost)
    monkeypatch.setattr("study.core.inventory.make_room", lambda *arguments: pytest.fail("a purged study is changed"))
    with pytest.raises(Purged):
        pipeline.run(study)


def test_a_purged_study_has_no_state(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    erasure.purge(folder, [])
    assert status.main([str(folder.root)]) == 2
    assert f"was purged on {read_json(folder.purged)['at'][:10]}" in capsys.readouterr().err
