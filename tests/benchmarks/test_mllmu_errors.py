"""The reader of MLLMU-Bench: what it says about data that is not right."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.benchmarks._mllmu.cells import lessons, questions
from study.benchmarks._shared.rows import Row
from study.benchmarks.mllmu import Mllmu
from tests.benchmarks.test_mllmu import Change, choice, edit, load, metadata

pytestmark = pytest.mark.usefixtures("strict")


def huge_png(side: int = 8000) -> bytes:
    """A PNG whose header declares so many pixels a side."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    end = b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    data = b"IDAT" + zlib.compress(b"")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk
        + struct.pack(">I", len(data) - 4)
        + data
        + struct.pack(">I", zlib.crc32(data))
        + end
    )


def _set_choice(key: str, value: object) -> Change:
    return lambda rows: choice(rows[1]).update({key: value})


def _set_options(**options: str | None) -> Change:
    return lambda rows: choice(rows[1])["Options"].update(options)


def _set_item(column: str, key: str, value: object) -> Change:
    return lambda rows: rows[1][column][0].update({key: value})


def _set_image(data: bytes | None) -> Change:
    return lambda rows: rows[1].update(image={"bytes": data, "path": "a.png"})


RETAIN_ROW = r"retain_85/train-00000-of-00001.parquet, row 1, ID \d{3}: "
FT_ROW = r"ft_Data/train-00000-of-00001.parquet, row 1, ID 001: "


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        (
            "retain_85",
            _set_choice("Correct_Answer", "E"),
            RETAIN_ROW + r".*Correct_Answer 'E' is not among .*A, B, C, D",
        ),
        ("retain_85", _set_choice("Correct_Answer", None), RETAIN_ROW + ".*Correct_Answer None is not among"),
        ("retain_85", _set_choice("Question", " "), RETAIN_ROW + r"classification question 0 .*: Question is empty"),
        ("retain_85", _set_choice("Options", None), RETAIN_ROW + ".*Options is None, not a struct"),
        ("retain_85", _set_options(C=None), RETAIN_ROW + r".*option C is empty or no text \(None\)"),
        ("retain_85", _set_options(B=""), RETAIN_ROW + ".*option B is empty"),
        ("retain_85", _set_options(A="x", B="X"), RETAIN_ROW + ".*two options are the same among"),
        ("retain_85", _set_item("Mask_Task", "Ground_Truth", ""), RETAIN_ROW + "cloze .*Ground_Truth is empty"),
        ("retain_85", _set_item("Generation_Task", "Question", None), RETAIN_ROW + "generation .*Question is empty"),
        ("retain_85", _set_item("Mask_Task", "Type", "Audio"), RETAIN_ROW + "Mask_Task: Type is 'Audio', not one of"),
        (
            "retain_85",
            lambda rows: rows[1].update(Classification_Task=None),
            RETAIN_ROW + "Classification_Task is None",
        ),
        ("retain_85", _set_image(None), RETAIN_ROW + "the image is missing; embed"),
        ("retain_85", _set_image(b"GIF89a..."), RETAIN_ROW + "not an image in one of PNG, JPEG, WEBP"),
        ("retain_85", _set_image(huge_png()), RETAIN_ROW + "the image has 8000 x 8000 = 64,000,000 pixels"),
        ("retain_85", lambda rows: rows.clear(), "retain_85: the split has no rows"),
        ("retain_85", lambda rows: rows.append(rows[2]), r"retain_85/.*, row 17, ID \d+: the same ID as in .*, row 2,"),
        ("retain_85", lambda rows: rows[1].update(ID=None), r"retain_85/.*, row 1: ID is empty"),
        ("Full_Set", lambda rows: rows.append(rows[0]), "Full_Set/.*, row 20, ID 001: the same ID"),
        ("Test_Set", lambda rows: rows.clear(), r"IDs of forget_\d+ without row in Test_Set \(0\d\d"),
        (
            "Test_Set",
            lambda rows: [r.update(images=[]) for r in rows],
            r"Test_Set/.*ID \d+: the list of images is empty",
        ),
        ("ft_Data", lambda rows: rows[1].update(metadata="["), FT_ROW + "metadata is not JSON"),
        ("ft_Data", lambda rows: rows[1].update(metadata=None), FT_ROW + "metadata is not JSON"),
        ("ft_Data", lambda rows: rows[1].update(metadata="[]"), FT_ROW + "metadata holds no lesson"),
        ("ft_Data", lambda rows: rows[1].update(metadata='["a"]'), FT_ROW + "metadata is .*not a list of structs"),
        (
            "ft_Data",
            lambda rows: rows[1].update(metadata=metadata(("Who?", ""))),
            FT_ROW + "metadata 0: Answer is empty",
        ),
        (
            "ft_Data",
            lambda rows: rows[1].update(metadata=metadata(("", "Bo"))),
            FT_ROW + "metadata 0: Question is empty",
        ),
        (
            "ft_Data",
            lambda rows: rows[1].update(metadata=metadata(("Who?", {"first": "Bo"}))),
            FT_ROW + r"metadata 0: Answer is empty or no text \(\{'first': 'Bo'\}\)",
        ),
        (
            "ft_Data",
            lambda rows: rows[1].update(metadata=metadata(("Who?", "Bo"), ("Parents?", ["Al", "Di"]))),
            FT_ROW + r"metadata 1: Answer is empty or no text \(\['Al', 'Di'\]\)",
        ),
        ("ft_Data", lambda rows: rows.__delitem__(slice(40)), r"IDs of forget_\d+ without any lesson \(0\d\d"),
        ("ft_Data", _set_image(b""), FT_ROW + "the image is missing"),
        ("Strangers", _set_image(b"x"), "Strangers/train-00000-of-00001.parquet, row 1: not an image"),
    ],
)
def test_a_bad_cell_is_named(data: Path, folder: str, change: Change, message: str) -> None:
    edit(data, folder, change)
    with pytest.raises(ValueError, match=message):
        load(data)


def test_forgotten_and_retained_people_do_not_overlap(data: Path) -> None:
    shutil.copytree(data / "forget_15", data / "retain_85", dirs_exist_ok=True)
    with pytest.raises(
        ValueError, match=r"3 IDs both in forget_15 and in retain_85 \(0\d\d, 0\d\d, 0\d\d\): a person is"
    ):
        load(data)


@pytest.mark.parametrize("folder", ["Full_Set", "Test_Set", "Retain_Set", "ft_Data"])
def test_a_missing_folder_is_named(data: Path, folder: str) -> None:
    shutil.rmtree(data / folder)
    with pytest.raises(ValueError, match=f"{folder}: no such folder or no parquet file in it; download"):
        load(data)


def test_a_missing_dataset_and_missing_ratios_are_named(data: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no such folder; give that of the dataset, or hub="):
        load(data / "nowhere")
    for ratio in (5, 10, 15, 20):
        shutil.rmtree(data / f"forget_{ratio}")
    with pytest.raises(ValueError, match=r"no pair of folders forget_X and retain_\(100-X\); download"):
        load(data)


def test_a_missing_shard_is_named(data: Path) -> None:
    (data / "Test_Set" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match=r"Test_Set: 1 files, but train-00000-of-00002.parquet is one of 2; download"):
        load(data)


@pytest.mark.parametrize("column", ["ID", "Classification_Task", "images", "Mask_Task"])
def test_a_missing_column_is_named(data: Path, column: str) -> None:
    file = data / "Test_Set" / "train-00001-of-00002.parquet"
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    with pytest.raises(ValueError, match=rf"Test_Set/train-00001-of-00002.parquet: no column '.*{column}.*', it has "):
        load(data)


@pytest.mark.parametrize("keep", [0, 7, 3000])
def test_a_damaged_file_is_named(data: Path, keep: int) -> None:
    file = data / "retain_90" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"retain_90/train-00000-of-00001.parquet: damaged or not a parquet file"):
        load(data)


def test_the_pointer_of_git_lfs_is_named(data: Path) -> None:
    """A clone without git-lfs has one in the place of each file, and so has the next download of that kind."""
    (data / "retain_90" / "train-00000-of-00001.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"retain_90/.*; it is the pointer of git-lfs: run `git lfs pull` there"):
        load(data)


def test_a_damaged_page_is_named(data: Path) -> None:
    file = data / "retain_90" / "train-00000-of-00001.parquet"
    content = bytearray(file.read_bytes())
    content[4:4000] = bytes(3996)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"retain_90/train-00000-of-00001.parquet: damaged"):
        load(data)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Question", "Options", "Type", "Answer", "Pure_Text_Questions", "bytes"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(choices=ANYTHING, generation=ANYTHING, cloze=ANYTHING, image=ANYTHING, taught=ANYTHING)
def test_any_cell_is_read_or_named(
    choices: object, generation: object, cloze: object, image: object, taught: object
) -> None:
    tasks = {"Classification_Task": choices, "Generation_Task": generation, "Mask_Task": cloze}
    row = Row("file", 7, {**tasks, "image": image, "metadata": taught}, "003")
    for read in (lambda: list(questions(row, "real", "003", [])), lambda: list(lessons(row, "003", {}))):
        try:
            read()
            message = ""
        except ValueError as error:
            message = str(error)
        assert not message or message.startswith("file, row 7, ID 003: ")


@pytest.mark.parametrize("train", ["../ft_Data", "a/b", ".", ".."])
def test_lessons_lie_in_a_folder_of_the_dataset(whole: Path, train: str) -> None:
    with pytest.raises(ValueError, match="give the name of a folder in the dataset, such as ft_Data"):
        Mllmu(whole, train=train)(whole)
