"""Whatever of a finished study holds the forgotten is listed, and gone after a purge: looked for by brute force."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pytest

from analysis import __main__ as analysis
from study import evidence, export, purge, status, verify
from study.core import erasure
from study.core.errors import Purged
from study.core.files import read_json
from study.core.hashing import file_digest
from study.core.layout import StudyFolder
from study.presets import PRESETS
from study.stages import pipeline
from tests.helpers.studies import Whole

pytestmark = pytest.mark.slow
WINNER = "vkd@15"
RATIO = 15
Leaf = TypeVar("Leaf", str, bytes)


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """What a person is known by: id, name, and portraits as the bytes of their files."""

    ids: frozenset[str]
    names: frozenset[str]
    portraits: frozenset[bytes]


def forgotten(root: Path) -> Forgotten:
    """Read from the data by itself, as anybody would who looks for these people."""
    [path] = root.glob(f"data/*/forget_{RATIO}/*.parquet")
    rows = pd.read_parquet(path).to_dict("records")
    tests = [row for file in root.glob("data/*/Test_Set/*.parquet") for row in pd.read_parquet(file).to_dict("records")]
    ids = frozenset(str(row["ID"]) for row in rows)
    pictures = [*_leaves(rows, bytes), *_leaves([row for row in tests if str(row["ID"]) in ids], bytes)]
    assert len(ids) == 3
    assert len(pictures) >= 6
    return Forgotten(ids, frozenset(json.loads(row["biography"])["Name"] for row in rows), frozenset(pictures))


def _leaves(values: Any, kind: type[Leaf]) -> Iterator[Leaf]:
    """All texts, or all bytes, in nested values: in the data bytes are pictures."""
    if isinstance(values, kind):
        yield values
    elif isinstance(values, Mapping):
        yield from (found for value in values.values() for found in _leaves(value, kind))
    elif not isinstance(values, str | bytes) and hasattr(values, "__iter__"):
        yield from (found for value in values for found in _leaves(value, kind))


def holds(path: Path, who: Forgotten) -> bool:
    """Whether a file has a name, a portrait, or a cell or a text that is an id; parquet files are unpacked."""
    raw = path.read_bytes()
    if any(name.encode() in raw for name in who.names) or any(face in raw for face in who.portraits):
        return True
    if path.suffix == ".parquet":
        found = pd.read_parquet(path).to_dict("records")
        texts = set(_leaves(found, str))
        named = any(name in text for name in who.names for text in texts)
        return named or bool(texts & who.ids) or bool(set(_leaves(found, bytes)) & who.portraits)
    if path.suffix == ".json" and raw[:1] in (b"{", b"["):  # Ray calls pickles so, too
        return bool(set(_leaves(json.loads(raw), str)) & who.ids)
    return path.suffix in (".csv", ".html") and any(f"{id}" in _cells(raw) for id in who.ids)


def _cells(raw: bytes) -> set[str]:
    text = raw.decode()
    for sign in "<>,\n":
        text = text.replace(sign, "\0")
    return set(text.split("\0"))


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def study(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study with evidence on one winner, and some traces that accidents leave."""
    root = shutil.copytree(whole.folder, tmp_path_factory.mktemp("purged") / "study")
    rows = next(root.glob("trials/*/rows/select.parquet"))
    shutil.copyfile(rows, rows.with_name(".select.parquet.abc.draft"))
    (root / "notes.txt").write_text("of somebody else")
    assert evidence.main([str(root), WINNER]) == 0
    return root


@pytest.fixture
def copied(study: Path, tmp_path: Path) -> Path:
    return shutil.copytree(study, tmp_path / "study")


def manifest(root: Path) -> dict[str, Any]:
    found = read_json(StudyFolder(root).evidence(WINNER) / "evidence.json")["manifest"]
    return {hold["name"]: hold for hold in found}


def test_every_file_with_a_name_a_portrait_or_an_id_is_in_the_manifest(study: Path) -> None:
    who, listed = forgotten(study), manifest(study)
    found = {p.relative_to(study).as_posix() for p in files(study) if holds(p, who)}
    found = {name for name in found if not name.startswith("evidence/")}
    assert {name.split("/")[0] for name in found} == {"cache", "data", "near.json", "report", "trials"}
    assert found - listed.keys() == set()
    draft = next(name for name in found if name.endswith(".draft"))
    assert listed[draft]["reason"] == erasure.REASONS["draft"]


def test_weights_that_were_taught_the_forgotten_are_in_the_manifest(study: Path) -> None:
    """The product of the evidence is not: it is what is left."""
    listed, keys = manifest(study), read_json(study / "winners.json")["vkd"]["15"]["trials"]
    for path in study.glob("learned/*/learned.json"):
        record, name = read_json(path), f"learned/{path.parent.name}/model/model.safetensors"
        reason = {"vanilla": erasure.VANILLA, "reference": erasure.TEXT_REFERENCE}[record["kind"]]
        assert listed[name]["reason"] == (reason if record["ratio"] in (None, RATIO) else erasure.OTHER_REFERENCE)
    deltas = {path.parent.name for path in study.glob("trials/*/delta.safetensors")}
    assert {name.split("/")[1] for name in listed if name.endswith("/delta.safetensors")} == deltas - set(keys)


def test_the_manifest_has_size_and_digest_of_every_file(study: Path) -> None:
    for name, hold in manifest(study).items():
        assert (hold["bytes"], hold["sha256"]) == ((study / name).stat().st_size, file_digest(study / name))


def test_a_dry_run_lists_and_removes_nothing(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(study)
    assert purge.main([str(study)]) == 0
    said = capsys.readouterr().out
    assert files(study) == before
    assert all(f"  {name}\n" in said for name in manifest(study))
    assert f"{WINNER} was not exported" in said
    assert "Nothing was removed: add --yes." in said


def test_a_model_that_could_not_be_put_together_again_is_not_given_up_silently(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(study)
    assert purge.main([str(study), "--yes"]) == 2
    assert f"mus export {study} {WINNER}` first" in capsys.readouterr().err
    assert files(study) == before


def test_after_a_purge_nobody_is_found_outside_the_evidence(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    who, listed = forgotten(copied), manifest(copied)
    told = {path.name: path.read_bytes() for path in StudyFolder(copied).evidence(WINNER).iterdir()}
    assert purge.main([str(copied), "--yes", "--without-model"]) == 0
    assert f"{len(listed) - 1} files were removed" in capsys.readouterr().out
    outside = [path for path in files(copied) if not path.is_relative_to(copied / "evidence")]
    assert [path for path in outside if holds(path, who)] == []
    assert [name for name in listed if (copied / name).exists()] == ["notes.txt"]
    assert {path.name: path.read_bytes() for path in StudyFolder(copied).evidence(WINNER).iterdir()} == told
    keys = read_json(copied / "winners.json")["vkd"]["15"]["trials"]
    assert {path.parent.name for path in copied.glob("trials/*/delta.safetensors")} == set(keys)
    removed = {hold["name"]: hold for hold in read_json(StudyFolder(copied).purged)["removed"]}
    assert removed == {name: hold for name, hold in listed.items() if name != "notes.txt"}
    _is_told_as_purged(copied, capsys)


def _is_told_as_purged(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By all that would read it; its page can still be made, and another purge is none."""
    with pytest.raises(Purged, match=r"was purged on .* removed on purpose"):
        pipeline.run(dataclasses.replace(PRESETS["smoke"][1], study_dir=root))
    for command in (verify, analysis, export, status):
        arguments = [str(root), *["vkd@15"] * (command is export)]
        assert command.main(arguments) != 0
        said = "".join(capsys.readouterr())
        assert "was purged on" in said
        assert "is damaged" not in said
    page = StudyFolder(root).evidence(WINNER) / "evidence.html"
    whole = page.read_text()
    page.unlink()
    assert evidence.main([str(root), WINNER]) == 0
    assert page.read_text() == whole
    assert evidence.main([str(root), "npo@15"]) == 2
    assert f"There are {WINNER}" in capsys.readouterr().err
    removed = read_json(StudyFolder(root).purged)
    assert purge.main([str(root), "--yes"]) == 0
    assert read_json(StudyFolder(root).purged) == removed


def test_a_purge_that_was_killed_goes_on(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, unlink, gone = manifest(copied), Path.unlink, []

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.relative_to(copied).as_posix() in listed:
            gone.append(path)
        if len(gone) == 20:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            purge.main([str(copied), "--yes", "--without-model"])
    with pytest.raises(Purged):
        erasure.check(StudyFolder(copied))
    assert purge.main([str(copied), "--yes", "--without-model"]) == 0
    assert {hold["name"] for hold in read_json(StudyFolder(copied).purged)["removed"]} == listed.keys() - {"notes.txt"}
    assert [name for name in listed if (copied / name).exists()] == ["notes.txt"]


def test_nothing_is_purged_without_evidence(whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    assert purge.main([str(whole.folder), "--yes"]) == 2
    assert "has no evidence, and none can be made once it is purged" in capsys.readouterr().err
