"""What a finished run left is known by name and digest: what is missing is made again, what has changed is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.study_folder import read
from study.core import inventory
from study.core.errors import Damaged
from study.core.files import read_json, write_json
from study.core.layout import StudyFolder
from study.export import named

FILES = (
    "study.json", "winners.json", "race.json", "near.json", "unknown.json",
    "data/base.json", "data/tiny/config.json", "data/tiny/model.safetensors", "data/made/Test_Set/a.parquet",
    "learned/v/learned.json", "learned/v/model/config.json", "learned/v/model/model.safetensors",
    "trials/t/trial.json", "trials/t/delta.safetensors", "trials/t/delta.sha256.json", "trials/t/rows/select.parquet",
    "trials/t/rows/report.parquet", "trials/t/rows/report.json", "trials/t/rows/blind.parquet",
    "trials/t/rows/whole_select.parquet", "trials/t/rows/whole_report.parquet",
    "trials/t/attacks/a.json", "trials/t/attacks/a.parquet", "trials/t/sequence/2.json",
    "trials/t/sequence/2.parquet", "trials/t/metric_check/plain.json", "trials/t/metric_check/plain.parquet",
    "search/vkd/0000.json", "attack_search/t/relearning/0000.json",
)  # fmt: skip
OTHERS = (
    "ray/log.txt", "cache/k/select.parquet", "report/report.html", "learned/v/curve.json", "learned/v/progress.json",
    "trials/t/general_utility.json", "trials/t/general_utility.log", "trials/t/general_utility.unread.json",
    ".lock", "trials/.draft", "failures/f.json", "exports/t/config.json",
)  # fmt: skip
"""What no number of the study is read from, or what is rebuilt whenever it is needed."""
TOGETHER = (
    {"data/tiny/config.json", "data/tiny/model.safetensors"},
    {"learned/v/learned.json", "learned/v/model/config.json", "learned/v/model/model.safetensors"},
    {"trials/t/trial.json", "trials/t/delta.safetensors", "trials/t/delta.sha256.json", "trials/t/rows/select.parquet",
     "trials/t/rows/whole_select.parquet"},
    {"trials/t/rows/report.parquet", "trials/t/rows/report.json", "trials/t/rows/whole_report.parquet"},
    {"trials/t/attacks/a.json", "trials/t/attacks/a.parquet"},
    {"trials/t/sequence/2.json", "trials/t/sequence/2.parquet"},
    {"trials/t/metric_check/plain.json", "trials/t/metric_check/plain.parquet"},
)  # fmt: skip
"""What is made together: each of the other files is made by itself."""
WEIGHTS = {"model.safetensors": "of v"}
"""The digests of the learned model."""
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncate": lambda data: data[:-1],
    "empty": lambda data: b"",
    "flip": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "object": lambda data: b"{}",
    "type": lambda data: b"[]",
}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study whose last run has ended."""
    folder = StudyFolder(tmp_path / "study")
    for name in (*FILES, *OTHERS):
        (folder.root / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.root / name).write_text(f"content of {name}")
    write_json(folder.settings, {"settings": {}})
    write_json(folder.learned_record("v"), {"sha256": WEIGHTS})
    write_json(folder.record("t"), {"start": {"key": "v"}})
    inventory.take(folder)
    return folder


def there(folder: StudyFolder) -> set[str]:
    return {path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*") if path.is_file()}


def test_every_file_with_a_result_is_listed_and_no_other(folder: StudyFolder) -> None:
    assert set(read_json(folder.inventory)["files"]) == set(FILES)
    assert inventory.problems(folder) == []
    assert inventory.lost(folder) == []


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_takes_along_what_was_made_with_it(folder: StudyFolder, name: str) -> None:
    """So that the stage that makes them finds nothing, and makes all of them; the rest stays."""
    before = there(folder)
    (folder.root / name).unlink()
    for reading in (read, named):
        with pytest.raises(Damaged, match=f"{name} is missing; run the same command again"):
            reading(folder.root)
    assert inventory.lost(folder) == [name]
    assert there(folder) == before - {name}
    inventory.make_room(folder, [name])
    together = next((group for group in TOGETHER if name in group), {name})
    gone = before - there(folder)
    assert gone & set(FILES) == together
    assert gone <= together | {"learned/v/curve.json", "learned/v/progress.json"}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_has_changed_is_named_with_what_to_remove(folder: StudyFolder, name: str, kind: str) -> None:
    """Removing that is all it takes. Weights have a digest of their own: here their size is compared."""
    path = folder.root / name
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    if kind == "flip" and folder.has_own_digest(name):
        assert inventory.problems(folder) == []
        return
    for reading in (read, named, lambda root: inventory.lost(StudyFolder(root))):
        with pytest.raises(
            Damaged, match=f"{name} is damaged: it is not what was written; put it back from a copy, or"
        ):
            reading(folder.root)
    [problem] = inventory.problems(folder)
    removed = Path(problem.remedy.split("remove ")[1].split(" and run")[0])
    assert removed.exists()
    assert path.is_relative_to(removed)
    assert removed == path or removed.parent.name in ("data", "learned")
    for file in [removed] if removed.is_file() else [p for p in removed.rglob("*") if p.is_file()]:
        file.unlink()
    inventory.make_room(folder, inventory.lost(folder))
    assert not path.exists()
    write_json(folder.inventory, {"files": {}})
    assert inventory.problems(folder) == []


def test_a_run_in_progress_has_no_inventory_to_fall_behind(folder: StudyFolder) -> None:
    inventory.clear(folder)
    (folder.root / "trials/t/trial.json").unlink()
    assert inventory.problems(folder) == []
    inventory.take(folder)
    assert "trials/t/trial.json" not in read_json(folder.inventory)["files"]


def test_a_model_that_is_taught_anew_must_be_the_one_that_trials_began_from(folder: StudyFolder) -> None:
    """In the run that follows its loss, and again in every run until the trials are gone."""
    other = {"model.safetensors": "other"}
    inventory.clear(folder)
    inventory.clear(folder)
    inventory.check_taught(folder, "v", WEIGHTS)
    inventory.check_taught(folder, "another", other)
    with pytest.raises(Damaged, match=r"learned/v was lost, .*: put it back from a copy, or remove trials, search"):
        inventory.check_taught(folder, "v", other)
    folder.record("t").unlink()
    inventory.check_taught(folder, "v", other)


def test_a_study_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    inventory.clear(StudyFolder(tmp_path))
    assert inventory.problems(StudyFolder(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["trials/../../other/trial.json", "trials/linked/x.json", "report/report.html", "/etc/x"]
)
def test_an_inventory_of_somebody_else_removes_nothing_but_results(folder: StudyFolder, name: str) -> None:
    other = folder.root.parent / "other" / "trial.json"
    other.parent.mkdir()
    other.write_text("mine")
    (folder.root / "trials" / "linked").symlink_to(other.parent)
    listed = read_json(folder.inventory)["files"]
    write_json(folder.inventory, {"files": {**listed, name: {"bytes": 1}}})
    before = there(folder)
    with pytest.raises(Damaged, match=r"files\.json is damaged: remove it|leads out of"):
        inventory.make_room(folder, inventory.lost(folder))
    assert there(folder) == before
    assert other.read_text() == "mine"


@pytest.mark.parametrize("content", ["", "[]", '{"files": []}', '{"files": '])
def test_a_damaged_inventory_is_named(folder: StudyFolder, content: str) -> None:
    folder.inventory.write_text(content)
    with pytest.raises(Damaged, match=r"files\.json is damaged.*: remove it and run the s"):
        inventory.check(folder)
