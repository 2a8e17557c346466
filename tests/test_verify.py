"""Every file of a study is checked, weights too, and each that is wrong is named with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from study import verify
from study.core import inventory
from study.core.files import write_json
from study.core.hashing import file_digest
from study.core.layout import StudyFolder
from study.core.records import LearnedRecord, write_record
from study.model.tensor_files import digest_beside, save_tensors


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study with a learned model and a trial."""
    folder = StudyFolder(tmp_path)
    weights = folder.model_dir("v") / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    digests = {weights.name: file_digest(weights)}
    record = LearnedRecord("v", "vanilla", "b", "b", None, None, {}, ("llm",), 0, digests, 1.0)
    write_record(folder.learned_record("v"), record)
    save_tensors(folder.delta("t"), {"a": torch.ones(3)})
    write_json(folder.record("t"), {})
    write_json(folder.settings, {"settings": {}})
    inventory.take(folder)
    return folder


def said(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = verify.main([str(folder.root)])
    return status, capsys.readouterr().out


def test_a_sound_study_is_sound(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(folder, capsys) == (0, f"{folder.root}: every file is as it was written\n")


def test_without_the_list_of_a_run_that_ended_only_weights_are_checked(
    folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory.clear(folder)
    for _ in range(2):
        status, told = said(folder, capsys)
        assert (status, "every file" in told, "all weights are as they were" in told) == (0, False, True)
        folder.inventory.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("learned/v/model/model.safetensors", "learned/v"), ("trials/t/delta.safetensors", "trials/t/delta.safetensors")],
)
def test_a_flipped_bit_of_weights_is_found(
    name: str, remedy: str, folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder.root / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    told = f"{name} is damaged: remove {folder.root / remedy} and run the same command again\n"
    assert said(folder, capsys) == (1, told)


@pytest.mark.parametrize("how", ["shorter", "without its checksum", "with another checksum"])
def test_what_the_list_of_files_names_is_named_once(
    how: str, folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one remedy for all that was made together."""
    delta = folder.delta("t")
    if how == "shorter":
        delta.write_bytes(delta.read_bytes()[:-1])
    elif how == "without its checksum":
        digest_beside(delta).unlink()
    else:
        digest_beside(delta).write_text("{}")
    status, told = said(folder, capsys)
    [line] = told.splitlines()
    assert status == 1
    named = delta if how == "shorter" else digest_beside(delta)
    assert line.startswith(named.relative_to(folder.root).as_posix())
    missing = "is missing; run the same command again, which computes it anew"
    wanted = missing if how == "without its checksum" else f"or remove {named} and run the same command again"
    assert wanted in line


def test_while_a_run_is_in_progress_a_trial_is_to_be_removed_as_a_whole(
    folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its weights alone it would still count as ended. A learned model is taught again as a whole, too."""
    inventory.clear(folder)
    folder.delta("t").write_bytes(b"")
    weights = folder.model_dir("v") / "model.safetensors"
    weights.unlink()
    told = [
        f"learned/v/model/model.safetensors is damaged: remove {folder.learned('v')} and run the same command again",
        f"trials/t/delta.safetensors is damaged: remove {folder.trial('t')} and run the same command again",
    ]
    assert said(folder, capsys) == (1, "\n".join(told) + "\n")


def test_a_record_that_cannot_be_read_hides_nothing_else(
    folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory.clear(folder)
    folder.learned_record("v").write_text("{")
    folder.delta("t").write_bytes(b"")
    lines = said(folder, capsys)[1].splitlines()
    assert [name in line for name, line in zip(("learned.json", "delta.safetensors"), lines, strict=True)] == [True] * 2


def test_what_is_missing_changed_or_foreign_is_listed(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.record("t").unlink()
    folder.settings.write_text("[]")
    write_json(folder.record("other"), {})
    status, told = said(folder, capsys)
    assert status == 1
    assert "study.json is damaged: it is not what was written; put it back from a copy, or remove" in told
    assert "trials/t/trial.json is missing; run the same command again" in told
    assert "trials/other/trial.json was not left by the last run" in told


def test_what_is_no_study_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("nowhere", ""):
        assert verify.main([str(tmp_path / name)]) == 2
        assert "is not a study: it has no study.json; name a folder" in capsys.readouterr().err
    for content, told in (("{", "is damaged"), ("{}", "is not what a study writes")):
        StudyFolder(tmp_path).settings.write_text(content)
        status, lines = said(StudyFolder(tmp_path), capsys)
        assert (status, f"study.json {told}" in lines) == (1, True)


def test_a_damaged_list_of_files_is_told(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.inventory.write_text("{")
    status, told = said(folder, capsys)
    assert (status, f"{folder.inventory} is damaged" in told) == (1, True)
