"""Whatever happens to a file of a finished study, its numbers come back: by themselves, or by the remedy that is told.

For every file and every damage the same command, the analysis and an export either end in the numbers that were there
before or in an error. For one file of each kind what the error says is then done, and the numbers are there.
"""

from __future__ import annotations

import dataclasses
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import pytest

from analysis.sections import sections
from analysis.study_folder import read
from analysis.tables import Table
from study import export
from study.core.errors import Damaged
from study.core.files import read_json
from study.core.layout import StudyFolder
from study.presets import PRESETS
from study.settings import Study
from study.stages import pipeline
from tests.core.test_inventory import DAMAGE
from tests.helpers.in_process import forget, without_ray
from tests.helpers.studies import proposals, rows

pytestmark = pytest.mark.slow
TIMES = re.compile("seconds|overhead")
"""Columns that no two runs agree on."""
Numbers = Mapping[str, pd.DataFrame]
HANDS = 2
"""Runs among which one file of each kind is dealt out: each takes seconds."""


def study_in(root: Path) -> Study:
    """As small as a study can be that leaves a file of every kind."""
    smoke = PRESETS["smoke"][1]
    return dataclasses.replace(
        smoke, study_dir=root, methods=("vkd",), forget_ratios=(10,), trials=2, reference_seeds=1, requests=2,
        searched_attacks=("relearning",), attack_trials=1,
    )  # fmt: skip


def run(root: Path) -> None:
    forget(root)
    with without_ray():
        assert pipeline.run(study_in(root)) == 0


def numbers(root: Path) -> Numbers:
    """Every table of the report, without the times that jobs took and what computed them, and every row there is."""
    study = read(root)
    tables = {part.name: part.raw for section in sections() for part in section.parts(study) if isinstance(part, Table)}
    del tables["provenance"]  # the code may have been changed since
    return {
        **{name: table[[c for c in table if not TIMES.search(str(c))]] for name, table in tables.items()},
        **{
            f"{name} {number}": pd.DataFrame([proposal])
            for number, (name, proposal) in enumerate(proposals(root).items())
        },
        **rows(root),
    }


def exported(root: Path, to: Path) -> dict[str, str]:
    """The digests of the exported winner."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export, "beside", lambda vlm, folder: None)
        export.export(root, export.record_of(root, "vkd@10"), to)
    found: dict[str, str] = read_json(to / export.ABOUT)["sha256"]
    return found


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished study, its numbers and its exported winner."""

    root: Path
    numbers: Numbers
    exported: Mapping[str, str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("finished") / "study"
    run(root)
    return Finished(root, numbers(root), exported(root, root.parent / "exported"))


def same(finished: Finished, root: Path) -> None:
    """The numbers of a copy are those of the study."""
    forget(root)
    found = numbers(root)
    assert found.keys() == finished.numbers.keys()
    for name, table in found.items():
        pd.testing.assert_frame_equal(table, finished.numbers[name], obj=name)


def files(root: Path) -> Iterator[str]:
    """Every file of a study but those that say themselves that they are rebuilt."""
    folder = StudyFolder(root)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and folder.is_result(name):
            yield name


def hands(names: list[str]) -> list[list[str]]:
    """One file of each kind, whatever the keys, dealt out to a few hands: the same whenever they are dealt."""
    by_kind: dict[str, list[str]] = {}
    for name in names:
        by_kind.setdefault(re.sub(r"[0-9a-f]{12}", "KEY", name), []).append(name)
    draw = random.Random(0)
    chosen = [draw.choice(found) for found in by_kind.values()]
    draw.shuffle(chosen)
    return [chosen[hand::HANDS] for hand in range(HANDS)]


def to_remove(told: Exception, path: Path) -> Path:
    """What an error about a file says is to be removed."""
    remedy = re.search(r"remove (\S+)", str(told))
    assert remedy is not None
    return path if remedy[1] == "it" else Path(remedy[1])


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_the_study_leaves_a_file_of_every_kind(finished: Finished) -> None:
    found = {Path(name).name for name in files(finished.root)} | {Path(n).parent.name for n in files(finished.root)}
    assert found >= {
        "study.json", "winners.json", "race.json", "near.json", "unknown.json", "base.json", "learned.json",
        "model.safetensors", "trial.json", "delta.safetensors", "select.parquet", "report.parquet", "blind.parquet",
        "attacks", "sequence", "metric_check", "relearning", "vkd",
    }  # fmt: skip


@pytest.mark.parametrize("hand", range(HANDS))
def test_what_is_deleted_comes_back(finished: Finished, tmp_path: Path, hand: int) -> None:
    """Readers say that the same command computes it anew, and it does: the file, and all numbers."""
    root = shutil.copytree(finished.root, tmp_path / "study")
    deleted = hands([*files(root)])[hand]
    for name in deleted:
        whole = (root / name).read_bytes()
        (root / name).unlink()
        for reading in (read, export.named):
            with pytest.raises(Damaged, match=f"{re.escape(name)} is missing; run the same command again"):
                reading(root)
        (root / name).write_bytes(whole)
    for name in deleted:
        (root / name).unlink()
    run(root)
    assert [name for name in deleted if not (root / name).exists()] == []
    same(finished, root)
    assert exported(root, tmp_path / "exported") == finished.exported


@pytest.mark.parametrize("hand", range(HANDS))
def test_the_remedy_of_what_is_damaged_brings_it_back(finished: Finished, tmp_path: Path, hand: int) -> None:
    root = shutil.copytree(finished.root, tmp_path / "study")
    damaged, removed = hands([*files(root)])[hand], set()
    for name in damaged:
        whole = (root / name).read_bytes()
        (root / name).write_bytes(DAMAGE["truncate"](whole))
        with pytest.raises(Damaged) as told:
            read(root)
        removed.add(to_remove(told.value, root / name))
        (root / name).write_bytes(whole)
    for path in removed:
        remove(path)
    run(root)
    assert [name for name in damaged if not (root / name).exists()] == []
    same(finished, root)
    assert exported(root, tmp_path / "exported") == finished.exported


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_named_by_everything_that_reads_it(finished: Finished, tmp_path: Path, kind: str) -> None:
    """All files, one after another."""
    root = shutil.copytree(finished.root, tmp_path / "study")
    folder = StudyFolder(root)
    for name in files(root):
        path = root / name
        whole = path.read_bytes()
        path.write_bytes(DAMAGE[kind](whole))
        if path.read_bytes() != whole and not (kind == "flip" and folder.has_own_digest(name)):
            for reading in (read, export.named, lambda root: pipeline.run(study_in(root))):
                with pytest.raises(Damaged, match=re.escape(f"{name} is damaged")):
                    reading(root)
        path.write_bytes(whole)
    same(finished, root)


@pytest.mark.parametrize("weights", ["learned/*/model/model.safetensors", "trials/*/delta.safetensors"])
def test_a_flipped_bit_of_weights_is_told_by_whoever_loads_them(
    finished: Finished, tmp_path: Path, weights: str
) -> None:
    """A run that needs none of them and the analysis end in the same numbers; the export names them with a remedy."""
    root = shutil.copytree(finished.root, tmp_path / "study")
    won = export.record_of(root, "vkd@10")
    name = weights.replace("*", won.start.key if weights.startswith("learned") else won.key)
    path = root / name
    path.write_bytes(DAMAGE["flip"](path.read_bytes()))
    run(root)
    same(finished, root)
    with pytest.raises(Damaged, match=re.escape(str(path))) as told:
        exported(root, tmp_path / "exported")
    remove(to_remove(told.value, path))
    run(root)
    same(finished, root)
    assert exported(root, tmp_path / "exported") == finished.exported
