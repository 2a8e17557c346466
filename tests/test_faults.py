"""Faults and bad inputs that no room meets by itself; docs/reliability.md lists all of them, with their tests."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from study.benchmarks._shared import rows
from study.contracts import Method
from study.core.errors import Damaged
from study.core.records import MethodProposal, existing, read_record, write_record
from study.data.benchmark import Benchmark
from study.data.picture import Picture
from study.methods.gradient_difference import GradientDifference
from study.methods.npo import NPO
from study.model.vlm import VLM
from tests import ROOT
from tests.helpers.small import changed, quick, request_on, snapshot

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
FITS = b"SIMPLE  =                    T / conforms to FITS".ljust(2880)


def test_a_record_torn_at_any_byte_is_never_taken_for_another(tmp_path: Path) -> None:
    """It is read as it was or is an error that names it and the remedy, also where it had been read before."""
    path = tmp_path / "0003.json"
    proposal = MethodProposal(3, {"steps": 12, "rate": 1e-3}, "0123456789ab", ratio=10)
    write_record(path, proposal)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.unlink()
        path.write_bytes(whole[:end])
        if whole[:end].strip() == whole.strip():
            assert read_record(MethodProposal, path) == proposal
            continue
        for reading in (read_record, existing):
            with pytest.raises(Damaged, match=r"0003\.json .*remove it and run the study again to rebuild it"):
                reading(MethodProposal, path)
    write_record(path, proposal)
    assert existing(MethodProposal, path) == proposal


@pytest.mark.parametrize("data", [SVG, FITS, b"", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_named_whatever_its_name(data: bytes) -> None:
    picture = Picture(data, "images/p01/0.png")
    for reading in (picture.check, picture.open):
        with pytest.raises(Damaged, match=r"^images/p01/0\.png: not an image in one of PNG, JPEG, WEBP"):
            reading()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is empty: replace it"),
        (b"\0\0\0\x18ftypheic\0\0", r"it begins with b'.*ftypheic': convert it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is the pointer of git-lfs: run `git lfs pull` there"),
    ],
)
def test_what_is_there_in_place_of_a_picture_is_told(data: bytes, told: str) -> None:
    """And no address in memory, which is another each time."""
    with pytest.raises(Damaged, match=rf"^x\.jpg: not an image in one of PNG, JPEG, WEBP; {told}, or remove it$"):
        Picture(data, "x.jpg").check()


def test_the_first_frame_of_an_animation_and_a_single_pixel_are_pictures(tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", (1, 1), colour) for colour in ("red", "blue"))
    path = tmp_path / "moving.png"
    red.save(path, save_all=True, append_images=[blue])
    assert Picture(path.read_bytes(), "x").open().getpixel((0, 0)) == (255, 0, 0)


def test_a_table_that_unpacks_to_much_more_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_UNPACKED", 2**20)
    (tmp_path / "Test_Set").mkdir()
    path = tmp_path / "Test_Set" / "a.parquet"
    pq.write_table(pa.table({"ID": ["1", "2"]}), path)
    assert [row.cells["ID"] for row in rows.rows(tmp_path, "Test_Set", ("ID",), "owner/name")] == ["1", "2"]
    pq.write_table(pa.table({"ID": ["0" * 2**22]}), path, compression="zstd", use_dictionary=False)
    with pytest.raises(ValueError, match=r"^Test_Set/a\.parquet: [\d,]+ bytes that unpack to 4,\d+,\d+, more than"):
        list(rows.rows(tmp_path, "Test_Set", ("ID",), "owner/name"))


@pytest.mark.parametrize("method", [GradientDifference(), NPO()])
@pytest.mark.parametrize(("forgotten", "retained"), [(1, None), (None, 1), (1, 1)])
def test_what_is_forgotten_or_kept_may_be_one_lesson_and_either_the_larger_set(
    method: Method, forgotten: int | None, retained: int | None, tiny: VLM, benchmark: Benchmark,
    tiny_folder: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """A batch is larger than that set."""
    whole = request_on(benchmark, tmp_path / "cache", tiny_folder, goal="full")
    lessons = (*whole.forget[:forgotten], *whole.retain[:retained])
    before = snapshot(tiny)
    quick(method)(tiny, replace(whole, split=replace(whole.split, lessons=lessons)))
    assert changed(before, snapshot(tiny))


STRANGE = {"LC_ALL": "C", "LANG": "C", "TZ": "Pacific/Kiritimati", "NO_COLOR": "1", "COLUMNS": "40", "PYTHONUTF8": "0"}


@pytest.mark.slow
def test_no_environment_changes_the_plan(tmp_path: Path) -> None:
    """Another locale and time zone, no home, no terminal, and blanks and other scripts in the path."""

    def plan(folder: Path, environment: dict[str, str]) -> str:
        folder.mkdir()
        command = [sys.executable, str(ROOT / "study" / "run.py"), "smoke", "--dry-run", "--study-dir", "runs/x"]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said = "".join(done.stdout.decode().split()).replace("".join(str(folder).split()), "FOLDER")
        return re.sub(r"[\d.,]+arefree", "", said)  # others fill the disk meanwhile

    plain = dict(os.environ)
    odd = {name: value for name, value in plain.items() if name not in ("HOME", "TERM")} | STRANGE
    one, other = plan(tmp_path / "plain", plain), plan(tmp_path / "name of Ünïcode 名", odd)
    assert one == other
    assert "FOLDER/runs/x" in one


def test_no_duration_is_taken_from_a_clock_that_may_jump() -> None:
    """Wall clocks name folders of Ray, tell how old a file is and date evidence; a monotonic one measures all else."""
    found = {
        path.relative_to(ROOT).as_posix(): node.func.attr
        for path in (ROOT / "study").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("time", "time_ns", "now", "utcnow", "today")
        and ast.unparse(node.func.value) in ("time", "datetime", "datetime.datetime", "date")
    }
    assert found == {
        "study/core/erasure.py": "now",
        "study/core/layout.py": "time", "study/engine/sessions.py": "time", "study/engine/team.py": "time_ns",
        "study/engine/tune_runner.py": "time_ns",
    }  # fmt: skip
