"""Files are whole or absent, damage is named, and equal content has an equal key."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from study.core.errors import Damaged, DiskFull
from study.core.files import read_json, read_object, silent, visible, write_json, written, written_folder
from study.core.hashing import before, canonical, content_key, file_digest
from study.core.rows import ROW_COLUMNS, read_rows, rows_at, write_rows
from study.model.tensor_files import save_tensors
from tests.helpers.rows import row

PLAIN = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
)


@dataclass(frozen=True)
class Settings:
    name: str = "a"
    rate: float = 0.1
    people: frozenset[str] = frozenset({"x", "y"})


@dataclass(frozen=True)
class Others:
    name: str = "a"
    rate: float = 0.1
    people: frozenset[str] = frozenset({"x", "y"})


def rows(count: int = 40) -> pd.DataFrame:
    one = row(score=0.25, step=3, seen=True, reply="Лиссабон, 東京")
    return pd.DataFrame([one | {"question": f"q{i}", "person": f"{i % 7:03d}"} for i in range(count)])


# ---- atomic files --------------------------------------------------------------------------------------------------
def test_a_file_is_written_into_folders_that_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.json"
    write_json(path, {"x": [1, "ä"]})
    assert read_json(path) == {"x": [1, "ä"]}
    assert [p.name for p in path.parent.iterdir()] == ["c.json"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("over", [False, True])
def test_a_folder_appears_whole(tmp_path: Path, over: bool) -> None:
    """With one that is there by then, it is the first, or the last if it is written over it."""
    path = tmp_path / "a" / "model"
    for number in (1, 2):
        with written_folder(path, over=over) as draft:
            (draft / "below").mkdir()
            (draft / "below" / f"{number}").write_text("x")
            assert path.exists() == (number == 2)
    assert [file.name for file in (path / "below").iterdir()] == ["2" if over else "1"]
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path, error: type[BaseException], over: bool) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(error), written_folder(path, over=over) as draft:  # noqa: PT012
        (draft / "new").touch()
        raise error
    assert [file.name for file in tmp_path.rglob("*")] == ["model", "old"]


def test_a_folder_cannot_take_the_name_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    with pytest.raises(OSError, match="model"), written_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "model").is_file()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "c.json"
    write_json(path, 1)
    with pytest.raises(error), written(path) as draft:  # noqa: PT012
        draft.write_text("half")
        assert read_json(path) == 1
        raise error
    assert read_json(path) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, "over quota"),
        RuntimeError("I/O error: No space left on device (os error 28)"),  # so safetensors says it
    ],
)
def test_a_full_disk_is_named_with_the_file_and_its_bytes(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "c.json"
    write_json(path, 1)
    with pytest.raises(DiskFull) as full, written(path, 12345):
        raise error
    assert f"the disk is full: {path} needs 12,345 bytes, and " in str(full.value)
    assert read_json(path) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_that_is_none_of_a_full_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), written(tmp_path / "c.json", 1):
        raise PermissionError(errno.EACCES, "not yours")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_rows_and_tensors_say_what_they_need_of_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draft is on a device without room: nothing that is half written gets its name."""
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (os.open("/dev/full", os.O_WRONLY), "/dev/full"))
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: None)  # the device stays
    with pytest.raises(DiskFull, match=r"rows needs [\d,]+ bytes, and"):
        write_rows(tmp_path / "rows", rows())
    with pytest.raises(DiskFull, match=r"c\.json needs [\d,]+ bytes, and"):
        write_json(tmp_path / "c.json", [1] * 9999)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_first_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "c.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_draft_is_not_mistaken_for_a_result(tmp_path: Path) -> None:
    with written(tmp_path / "c.parquet") as draft:
        assert draft.parent == tmp_path
        assert not list(tmp_path.glob("*.parquet"))


@pytest.mark.parametrize("content", [b"", b'{"x": 1', b"\xff\xfe", b"{} {}"])
def test_a_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trial.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"trial\.json is damaged .* remove it and run the study again"):
        read_json(path)


@pytest.mark.parametrize("content", ["[]", "1", '"path"', "{}", '{"paths": 1}'])
def test_a_json_without_what_is_read_from_it_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "base.json"
    path.write_text(content)
    with pytest.raises(Damaged, match=r"base\.json is damaged .* remove it and run the study again"):
        read_object(path, "path")
    write_json(path, {"path": "a", "more": 1})
    assert read_object(path, "path") == read_object(path) == {"path": "a", "more": 1}


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_digest(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# ---- keys ----------------------------------------------------------------------------------------------------------
@given(st.dictionaries(st.text(max_size=4), JSON, max_size=5), st.randoms())
def test_a_key_does_not_depend_on_the_order_of_a_mapping(value: dict[str, Any], shuffler: random.Random) -> None:
    items = list(value.items())
    shuffler.shuffle(items)
    assert content_key(dict(items)) == content_key(value)


@given(JSON, JSON)
def test_other_content_has_another_key(one: object, other: object) -> None:
    assume(repr(canonical(one)) != repr(canonical(other)))
    assert content_key(one) != content_key(other)


@given(st.lists(st.text(max_size=4)))
def test_a_key_does_not_depend_on_the_order_of_a_set(values: list[str]) -> None:
    assert content_key(set(values)) == content_key(frozenset(reversed(values)))


def test_keys_are_the_same_on_every_machine() -> None:
    assert content_key(Settings()) == "f6e3cb09df4b"


@pytest.mark.parametrize("change", [{"name": "b"}, {"rate": 0.1 + 1e-16 + 1e-17}, {"people": frozenset({"x"})}])
def test_every_field_is_in_the_key(change: Mapping[str, Any]) -> None:
    assert content_key(replace(Settings(), **change)) != content_key(Settings())


def test_a_later_field_is_in_the_key_once_it_makes_a_difference() -> None:
    """With what everything was before there was such a field, the key is that of content without it."""

    @dataclass(frozen=True)
    class Older:
        rate: float = 0.5

    without = content_key(Older())

    @dataclass(frozen=True)
    class Newer(Older):
        form: str = field(default="new", metadata=before("old"))

    Newer.__name__ = "Older"
    assert content_key(Newer(form="old")) == without
    assert canonical(Newer(form="old")) == canonical(Older())
    assert len({content_key(Newer(form=form)) for form in ("old", "new", "other")}) == 3


def test_the_type_is_in_the_key_at_any_depth() -> None:
    assert content_key(Settings()) != content_key(Others())
    assert content_key({"x": [Settings()]}) != content_key({"x": [Others()]})


@pytest.mark.parametrize("value", [object(), Settings, np.int64(3), b"x", 1j, {"a": [lambda: 0]}, {1, "a"}])
def test_what_has_no_content_has_no_key(value: object) -> None:
    with pytest.raises(TypeError):
        content_key(value)


# ---- rows ----------------------------------------------------------------------------------------------------------
def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "r" / "select.parquet"
    given_rows = rows()
    shuffled = given_rows[[*reversed(ROW_COLUMNS)]].assign(more=1, step=given_rows["step"].astype("int8"))
    write_rows(path, shuffled)
    found = read_rows(path)
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == ROW_COLUMNS
    assert list(found) == list(ROW_COLUMNS)
    pd.testing.assert_frame_equal(found, given_rows[list(ROW_COLUMNS)].astype(ROW_COLUMNS))


def test_no_rows_are_rows_too(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.parquet", rows().head(0))
    found = read_rows(tmp_path / "x.parquet")
    assert len(found) == 0
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == ROW_COLUMNS


def test_rows_without_a_column_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="held_out"):
        write_rows(tmp_path / "x.parquet", rows().drop(columns="held_out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_row_file_is_named(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "select.parquet"
    write_rows(path, rows())
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match=r"select\.parquet is damaged .* remove it and run the study again"):
        read_rows(path)


def test_a_flipped_bit_among_the_values_is_named(tmp_path: Path) -> None:
    path = tmp_path / "select.parquet"
    write_rows(path, rows())
    data = path.read_bytes()
    place = data.index("Лиссабон".encode())
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(ValueError, match=r"select\.parquet is damaged"):
        read_rows(path)


def test_a_row_file_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    rows().drop(columns="seen").to_parquet(tmp_path / "select.parquet")
    with pytest.raises(ValueError, match=r"select\.parquet is damaged .*seen"):
        read_rows(tmp_path / "select.parquet")


def test_a_silent_process_writes_nothing(tmp_path: Path) -> None:
    with silent():
        write_json(tmp_path / "a.json", {})
        write_rows(tmp_path / "a.parquet", rows())
        save_tensors(tmp_path / "a.safetensors", {"w": torch.zeros(1)})
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "a.json", {})
    assert read_json(tmp_path / "a.json") == {}


def test_rows_that_are_missing_or_damaged_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    assert rows_at(path) is None
    write_rows(path, rows())
    found = rows_at(path)
    assert found is not None
    pd.testing.assert_frame_equal(found, read_rows(path))
    path.write_bytes(path.read_bytes()[:-9])
    assert rows_at(path) is None


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    """A Mac leaves `._x` beside every x that it copies to a foreign disk, and `.DS_Store` in every folder it shows."""
    for name in ("b.json", "a.json", "._a.json", ".DS_Store", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in visible(tmp_path, "*.json")] == ["a.json", "b.json"]
