"""A study's copy elsewhere: whole files, in the order they were written, none lost, fetched where the folder is not."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow import fs as arrow

from study.core import mirror
from study.core.console import console
from study.core.errors import Damaged
from study.core.files import write_json
from study.core.mirror import Place, fetch, mirrored, place, push, refuse_address
from study.core.signals import end_now
from study.presets import PRESETS
from study.settings import Study
from study.stages.manifest import GROWING
from study.stages.pipeline import _fetch

MINUTE = 60 * 10**9
STUDY = {
    "data/base.json": "{}",
    "learned/a/model/model.safetensors": "weights",
    "learned/a/learned.json": "{}",
    "trials/t/delta.safetensors": "delta",
    "trials/t/rows/select.parquet": "rows",
    "trials/t/trial.json": '{"state": "complete"}',
    "trials/t/attacks/x.json": "{}",
    "trials/t/attacks/x.parquet": "attacked",
    "winners.json": "{}",
}
"""The files of a study in the order in which one writes them; an attack's note comes before its rows."""


def study_in(root: Path, seed: int = 0, methods: tuple[str, ...] = ("vkd",)) -> Path:
    """A study whose files were written a minute apart, long ago."""
    write_json(root / "study.json", {"settings": {"seed": seed, "methods": list(methods)}})
    os.utime(root / "study.json", ns=(MINUTE, MINUTE))
    for i, (name, text) in enumerate(STUDY.items(), 2):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, ns=(i * MINUTE, i * MINUTE))
    for name in (".lock", "ray/state.json", "cache/k/text.parquet", "learned/.model.x/half", "trials/.t.json.1.draft"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("not to be kept")
    return root


def contents(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


def kept(root: Path) -> dict[str, str]:
    """What of a study's folder is worth keeping."""
    return {name: text for name, text in contents(root).items() if text != "not to be kept"}


class Watched:
    """A file system that notes in which order files appear under their own names, and can fail at one of them."""

    def __init__(self, inner: Any, fail_at: int = -1) -> None:
        self.inner, self.fail_at = inner, fail_at
        self.appeared: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def move(self, source: str, target: str) -> None:
        if len(self.appeared) == self.fail_at:
            raise OSError("the network is gone")
        self.inner.move(source, target)
        self.appeared.append(target)


def copy_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow copies between file systems of its own only: look through the watched one."""
    real = arrow.copy_files

    def copy_files(
        source: str, target: str, *, source_filesystem: Any, destination_filesystem: Any, **rest: Any
    ) -> None:
        one, other = (getattr(f, "inner", f) for f in (source_filesystem, destination_filesystem))
        real(source, target, source_filesystem=one, destination_filesystem=other, **rest)

    monkeypatch.setattr(arrow, "copy_files", copy_files)


@pytest.fixture(params=["file", "subtree", "mock"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place in each kind of file system."""
    if request.param == "file":
        yield place((tmp_path / "bucket" / "mine").as_uri())
    elif request.param == "subtree":
        (tmp_path / "bucket").mkdir()
        yield Place(arrow.SubTreeFileSystem(str(tmp_path / "bucket"), arrow.LocalFileSystem()), "runs/mine")
    else:
        yield Place(arrow._MockFileSystem(current_time=datetime(2026, 1, 1)), "bucket/mine")


# ---- there and back --------------------------------------------------------------------------------------------
def test_what_is_pushed_is_fetched_where_the_folder_is_not(there: Place, tmp_path: Path) -> None:
    here, home = study_in(tmp_path / "here"), tmp_path / "elsewhere" / "study"
    assert push(here, there, {}) == len(STUDY) + 1
    assert fetch(there, home) == len(STUDY) + 1
    assert contents(home) == kept(here)
    assert kept(here).keys() == {*STUDY, "study.json"}


def test_nothing_is_copied_twice(there: Place, tmp_path: Path) -> None:
    here, home = study_in(tmp_path / "here"), tmp_path / "home"
    push(here, there, {})
    assert push(here, there, {}) == 0
    fetch(there, home)
    assert push(home, there, {}) == 0
    assert fetch(there, home) == 0


def test_only_what_changed_is_copied_again_even_if_its_size_did_not(tmp_path: Path) -> None:
    here, there = study_in(tmp_path / "here"), place((tmp_path / "there").as_uri())
    seen: mirror.Seen = {}
    push(here, there, seen)
    (here / "winners.json").write_text("[]")  # as long as before
    (here / "trials/t/rows/report.parquet").write_text("more")
    assert push(here, there, dict(seen)) == 2  # in the same study
    (here / "winners.json").write_text("()")
    assert push(here, there, {}) == 1  # in one that goes on
    assert contents(tmp_path / "there") == kept(here)


def test_nothing_is_ever_removed(tmp_path: Path) -> None:
    here, there = study_in(tmp_path / "here"), place((tmp_path / "there").as_uri())
    push(here, there, {})
    before = kept(here)
    shutil.rmtree(here / "trials")
    push(here, there, {})
    assert contents(tmp_path / "there") == before


# ---- cut off at any point --------------------------------------------------------------------------------------
@pytest.mark.parametrize("fail_at", range(len(STUDY) + 1))
def test_a_copy_that_is_cut_off_is_the_study_as_it_once_was(
    fail_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_through(monkeypatch)
    here = study_in(tmp_path / "here")
    target = tmp_path / "there"
    watched = Watched(arrow.LocalFileSystem(), fail_at)
    with pytest.raises(OSError, match="the network is gone"):
        push(here, Place(watched, str(target)), {})
    order = ["study.json", *STUDY]
    assert [path.removeprefix(f"{target}/") for path in watched.appeared] == order[:fail_at]
    home = tmp_path / "home"
    fetch(Place(arrow.LocalFileSystem(), str(target)), home)
    assert contents(home).keys() == set(order[:fail_at])  # the half of a file that was on its way is none
    assert push(here, Place(arrow.LocalFileSystem(), str(target)), {}) == len(order) - fail_at


def test_a_fetch_that_is_cut_off_goes_on_and_has_no_settings_before_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, home = study_in(tmp_path / "here"), place((tmp_path / "there").as_uri()), tmp_path / "home"
    push(here, there, {})
    real, left = mirror._copy, [3]

    def few(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("the network is gone")
        real(*arguments)

    monkeypatch.setattr(mirror, "_copy", few)
    with pytest.raises(OSError, match="the network is gone"):
        fetch(there, home)
    assert len(contents(home)) == 3
    assert not (home / "study.json").exists()
    monkeypatch.setattr(mirror, "_copy", real)
    assert fetch(there, home) == len(STUDY) + 1 - 3
    assert contents(home) == kept(here)


def test_a_file_of_which_a_part_arrived_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = study_in(tmp_path / "here"), place((tmp_path / "there").as_uri())

    def half(source: str, target: str, **rest: Any) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:1])

    monkeypatch.setattr(arrow, "copy_files", half)
    with pytest.raises(OSError, match=r"study\.json\.draft has 1 bytes of \d+"):
        push(here, there, {})
    assert not (tmp_path / "there" / "study.json").exists()


# ---- while a study runs ----------------------------------------------------------------------------------------
def test_a_study_is_copied_while_it_runs_and_at_its_end_however_it_ends(tmp_path: Path) -> None:
    here, target = tmp_path / "here", tmp_path / "there"
    here.mkdir()

    def study() -> None:
        with mirrored(here, target.as_uri(), pytest.fail, period=0.02):
            (here / "study.json").write_text("{}")
            while not (target / "study.json").exists():
                pass
            (here / "winners.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study()
    assert contents(target) == {"study.json": "{}", "winners.json": "{}"}


def test_a_network_that_is_away_for_a_while_ends_no_study(tmp_path: Path) -> None:
    here, target, told = tmp_path / "here", tmp_path / "there", list[str]()
    here.mkdir()
    (here / "study.json").write_text("{}")
    target.write_text("a file where the folder should be")
    with mirrored(here, target.as_uri(), told.append, period=0.02):
        while not told:
            pass
        target.unlink()
    assert "cannot be written at the moment" in told[0]
    assert contents(target) == {"study.json": "{}"}


def test_a_copy_that_lacks_the_end_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    here, target = study_in(tmp_path / "here"), tmp_path / "there"
    target.write_text("a file where the folder should be")
    with (
        pytest.raises(OSError, match=r"there lacks the latest files of .*here .*run again to copy them"),
        mirrored(here, target.as_uri(), pytest.fail),
    ):
        pass


def test_a_study_that_has_to_end_at_once_is_copied_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, target, found = tmp_path / "here", tmp_path / "there", list[dict[str, str]]()
    here.mkdir()
    monkeypatch.setattr(os, "_exit", lambda status: found.append(contents(target)))
    with mirrored(here, target.as_uri(), pytest.fail):
        (here / "study.json").write_text("{}")
        end_now("the end", 1, 60.0)
    assert found == [{"study.json": "{}"}]


def test_a_last_copy_that_takes_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, free = list[str](), threading.Event()
    monkeypatch.setattr(console, "print", lambda line, **_: said.append(line))
    monkeypatch.setattr(os, "_exit", lambda status: free.set())
    monkeypatch.setattr(mirror, "push", lambda *_: free.wait(60))
    with mirrored(tmp_path, "s3://key:secret@bucket/mine?region=eu-west-1", pytest.fail):
        end_now("the end", 1, 0.01)
    assert said == [
        f"storage: s3://bucket/mine?region=eu-west-1 may lack the latest files of {tmp_path}: run again to copy them",
        "the end",
    ]


def test_no_address_no_copy(tmp_path: Path) -> None:
    with mirrored(tmp_path / "nowhere", "", pytest.fail):
        pass


# ---- what is refused -------------------------------------------------------------------------------------------
def test_a_copy_of_another_study_is_refused_and_one_that_grew_is_not(tmp_path: Path) -> None:
    there = place((tmp_path / "there").as_uri())
    push(study_in(tmp_path / "one"), there, {})
    assert fetch(there, study_in(tmp_path / "two", methods=("vkd", "npo")), growing=GROWING) == 0
    with pytest.raises(ValueError, match=r"holds another study than .*three \(seed differ\)"):
        fetch(there, study_in(tmp_path / "three", seed=1, methods=("npo",)), growing=GROWING)


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [("runs/mine", "cannot be used"), ("nonsense://bucket/mine", "cannot be used"), ("file:///", "names no folder")],
)
def test_an_address_that_pyarrow_cannot_use_is_refused(uri: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        place(uri)


@pytest.mark.parametrize("name", ["", "copy"])
def test_a_copy_within_what_it_copies_is_refused(name: str, tmp_path: Path) -> None:
    """It would be copied in its turn, and again a minute later."""
    with pytest.raises(ValueError, match=r"lies in the study folder .*, of which it is to be a copy; name another"):
        fetch(place((tmp_path / "study" / name).as_uri()), tmp_path / "study")
    assert fetch(place((tmp_path / "study-copy").as_uri()), tmp_path / "study") == 0


def test_a_secret_in_an_address_is_not_told() -> None:
    with pytest.raises(ValueError, match="storage='nonsense://bucket/mine' cannot be used") as told:
        place("nonsense://key:secret@bucket/mine")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("folder", ["s3://bucket/runs/mine", "gs://bucket/mine", "file:///runs/mine"])
def test_a_study_folder_that_is_an_address_is_refused_with_the_remedy(folder: str) -> None:
    with pytest.raises(ValueError, match=r"is an address.*--storage"):
        Study(study_dir=Path(folder))


@pytest.mark.parametrize("folder", ["runs/mine", "/shared/runs/mine", "C:/runs/mine", "runs/s3:/mine"])
def test_a_folder_is_no_address(folder: str) -> None:
    refuse_address(Path(folder))


def test_a_study_fetches_before_it_looks_at_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = study_in(tmp_path / "here")
    push(here, place((tmp_path / "there").as_uri()), {})
    smoke = PRESETS["smoke"][1]
    asked = {"study_dir": tmp_path / "home", "storage": (tmp_path / "there").as_uri()}
    _fetch(Study(**{**vars(smoke), **asked}))
    assert contents(tmp_path / "home") == kept(here)
    _fetch(Study(**{**vars(smoke), "study_dir": tmp_path / "fresh"}))
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize("name", ["../outside.json", "trials/../../outside.json", "linked/outside.json"])
def test_a_name_in_a_bucket_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing of that copy is fetched."""
    there = place((tmp_path / "bucket").as_uri())
    push(study_in(tmp_path / "study"), there, {})

    class Planted:
        """A bucket that also has a key of somebody else."""

        def __getattr__(self, attribute: str) -> Any:
            return getattr(there.filesystem, attribute)

        def get_file_info(self, selector: Any) -> list[Any]:
            found = list(there.filesystem.get_file_info(selector))
            if isinstance(selector, arrow.FileSelector):
                found.append(arrow.FileInfo(f"{there.path}/{name}", arrow.FileType.File, size=2, mtime_ns=1))
            return found

    fetched = tmp_path / "fetched"
    fetched.mkdir()
    (fetched / "linked").symlink_to(tmp_path)
    with pytest.raises(Damaged, match=r"leads out of .*: remove that file where it is stored"):
        fetch(Place(Planted(), there.path), fetched)
    assert [path.name for path in fetched.iterdir()] == ["linked"]
    assert not (tmp_path / "outside.json").exists()


def test_a_link_in_a_study_is_not_copied(tmp_path: Path) -> None:
    """It may lead to a file that is nobody's business."""
    study, there = study_in(tmp_path / "study"), place((tmp_path / "bucket").as_uri())
    (tmp_path / "secret").write_text("a key")
    (study / "trials" / "t" / "linked.json").symlink_to(tmp_path / "secret")
    push(study, there, {})
    assert not (tmp_path / "bucket" / "trials" / "t" / "linked.json").exists()
    assert (tmp_path / "bucket" / "trials" / "t" / "trial.json").exists()


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ("s3://b/x", "s3://b/x?allow_delayed_open=true"),
        ("s3://b/x?region=us-west-2", "s3://b/x?region=us-west-2&allow_delayed_open=true"),
        ("s3://b/x?allow_delayed_open=false", "s3://b/x?allow_delayed_open=false"),
        ("file:///x", "file:///x"),
    ],
)
def test_a_small_file_goes_to_s3_in_one_request(asked: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is asked otherwise."""
    opened: list[str] = []

    def from_uri(uri: str) -> tuple[None, str]:
        opened.append(uri)
        return None, "b/x"

    monkeypatch.setattr("study.core.mirror.arrow.FileSystem", SimpleNamespace(from_uri=from_uri))
    place(asked)
    assert opened == [used]
