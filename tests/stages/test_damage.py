"""Whatever happens to a file of a finished study, its numbers come back: by themselves, or by the remedy that is told.

For every file and every damage the same command, the analysis and an export either end in the numbers that were there
before or in an error, which says the same to remove as that of any other damage of the file. That is then done, here
for one file of each kind and with `combinations` for every file, and the numbers are there.
"""

from __future__ import annotations

import dataclasses
import os
import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from analysis.sections import sections
from analysis.study_folder import read
from analysis.tables import Table
from study import export, verify
from study.core import inventory
from study.core.errors import Damaged, Failed
from study.core.files import read_json
from study.core.layout import StudyFolder
from study.core.records import TrialRecord, read_record
from study.experiment.checkpoints import load_learned, unlearned_model
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
OTHER_DAMAGE = [kind for kind in (*DAMAGE, "delete") if kind != "type"]
"""All that may happen to a file but what most of its readers would fail at."""


def study_in(root: Path) -> Study:
    """As small as a study can be that leaves a file of every kind."""
    smoke = PRESETS["smoke"][1]
    return dataclasses.replace(
        smoke, study_dir=root, methods=("vkd",), forget_ratios=(10,), trials=2, reference_seeds=1, requests=2,
        searched_attacks=("relearning",), attack_trials=1,
    )  # fmt: skip


def run(root: Path) -> None:
    """The same command; `numbers` makes the tables of the report, so it need not do that as well."""
    forget(root)
    with without_ray(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(pipeline, "_finish", lambda plan, failures: None)
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


def comes_back(finished: Finished, root: Path, names: Iterable[str]) -> None:
    """The same command makes these files of a copy again, and its numbers and its export are those of the study."""
    run(root)
    assert [name for name in names if not (root / name).exists()] == []
    same(finished, root)
    to = root.parent / "exported"
    assert exported(root, to) == finished.exported
    shutil.rmtree(to)


def files(root: Path) -> Iterator[str]:
    """Every file of a study but those that say themselves that they are rebuilt."""
    folder = StudyFolder(root)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and folder.is_result(name):
            yield name


def hands(names: Iterable[str]) -> list[list[str]]:
    """One file of each kind, whatever the keys, dealt out to a few hands: the same whenever they are dealt."""
    by_kind: dict[str, list[str]] = {}
    for name in names:
        by_kind.setdefault(re.sub(r"[0-9a-f]{12}", "KEY", name), []).append(name)
    draw = random.Random(0)
    chosen = [draw.choice(found) for found in by_kind.values()]
    draw.shuffle(chosen)
    return [chosen[hand::HANDS] for hand in range(HANDS)]


def apart(folder: StudyFolder, names: Iterable[str]) -> list[list[str]]:
    """All of these in hands of which none has two files of one trial, or one from which another was made.

    Otherwise what is made anew might hide that something else was not. What trials are made from is a hand for each.
    Trials are not made from each other, except that those of methods are scored on their way against the rows of the
    yardsticks: so these are dealt from the first hand on, the others from the last, and each begins with what its trial
    wrote as it ran.
    """
    trials: dict[str, list[str]] = {}
    alone = []
    for name in sorted(names):
        if name.startswith("trials/"):
            trials.setdefault(name.split("/")[1], []).append(name)
        else:
            alone.append([name])
    shared: list[list[str]] = [[] for _ in range(max(map(len, trials.values())))]
    for key, found in trials.items():
        found.sort(key=lambda name: folder.group(name) != f"trials/{key}/trial")
        is_method = read_record(TrialRecord, folder.record(key)).kind == "method"
        for hand, name in zip(reversed(shared) if is_method else shared, found, strict=False):
            hand.append(name)
    return [*alone, *shared]


def told_by(reading: Callable[[Path], object], root: Path) -> Damaged:
    """The error of a reader of a study of which a file is damaged."""
    with pytest.raises(Damaged) as told:
        reading(root)
    return told.value


def error_of(reading: Callable[[Path], object], root: Path) -> Damaged | Failed | None:
    """What a reader of a study says of a file that is damaged, if it does."""
    try:
        reading(root)
    except (Damaged, Failed) as error:
        return error
    return None


def verified(root: Path) -> None:
    """Raise what `mus verify` says, which is about one file."""
    found = list(verify.problems(StudyFolder(root)))
    if found:
        [told] = found
        raise Damaged(told)


def weights_loaded(root: Path, name: str) -> None:
    """Load weights, as whatever needs them does."""
    folder, key = StudyFolder(root), name.split("/")[1]
    forget(root)
    if name.startswith("learned"):
        load_learned(root, key)
    else:
        start = read_record(TrialRecord, folder.record(key)).start
        unlearned_model(folder, key, load_learned(root, start.key))


def in_one_piece(root: Path, to: Path) -> Path:
    """A study with the very files of another, to be removed there and not to be written to."""
    return shutil.copytree(root, to, copy_function=os.link, ignore=shutil.ignore_patterns("report", "cache", ".lock"))


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


@pytest.fixture(scope="module")
def remedies(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is to be removed, as the analysis says, of each file that has lost its last byte."""
    root = shutil.copytree(finished.root, tmp_path_factory.mktemp("truncated") / "study")
    found = {}
    for name in files(root):
        path = root / name
        whole = path.read_bytes()
        path.write_bytes(DAMAGE["truncate"](whole))
        found[name] = to_remove(told_by(read, root), path).relative_to(root).as_posix()
        path.write_bytes(whole)
    return found


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
    deleted = hands(files(root))[hand]
    for name in deleted:
        whole = (root / name).read_bytes()
        (root / name).unlink()
        for reading in (read, export.named, verified):
            said = str(told_by(reading, root))
            assert f"{name} is missing; run the same command again" in said
        (root / name).write_bytes(whole)
    for name in deleted:
        (root / name).unlink()
    comes_back(finished, root, deleted)


def test_what_is_deleted_leaves_what_the_remedy_of_its_damage_leaves(
    finished: Finished, remedies: Mapping[str, str], tmp_path: Path
) -> None:
    """All files: the run that follows finds the same, so what brings one back brings back the other."""
    removed = {name: remedy for name, remedy in remedies.items() if remedy != name}
    assert removed, "of a model the whole folder goes"
    for pair in removed.items():
        left = []
        for number, name in enumerate(pair):
            folder = StudyFolder(in_one_piece(finished.root, tmp_path / str(number)))
            remove(folder.root / name)
            inventory.make_room(folder, inventory.lost(folder))
            left.append([*files(folder.root)])
            shutil.rmtree(folder.root)
        assert left[0] == left[1] != [*remedies], pair


@pytest.mark.parametrize("hand", range(HANDS))
def test_the_remedy_of_what_is_damaged_brings_it_back(
    finished: Finished, remedies: Mapping[str, str], tmp_path: Path, hand: int
) -> None:
    """One file of each kind."""
    root = shutil.copytree(finished.root, tmp_path / "study")
    damaged = hands(remedies)[hand]
    for remedy in {remedies[name] for name in damaged}:
        remove(root / remedy)
    comes_back(finished, root, damaged)


@pytest.mark.combinations
def test_every_remedy_brings_back_what_was_damaged(
    finished: Finished, remedies: Mapping[str, str], tmp_path: Path
) -> None:
    """All files. Each hand begins with what the run after the last one left."""
    root, followed = shutil.copytree(finished.root, tmp_path / "study"), {*remedies.values()}
    dealt = apart(StudyFolder(root), followed)
    assert sorted(name for hand in dealt for name in hand) == sorted(followed)
    assert (len(remedies), len(followed), len(dealt)) == (106, 73, 28), "as docs/reliability.md says"
    for hand in dealt:
        for remedy in hand:
            remove(root / remedy)
        comes_back(finished, root, [name for name, remedy in remedies.items() if remedy in hand])


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_named_by_everything_that_reads_it(
    finished: Finished, remedies: Mapping[str, str], tmp_path: Path, kind: str
) -> None:
    """All files, one after another, and each time with the same to remove. Of weights a run compares the size."""
    root = shutil.copytree(finished.root, tmp_path / "study")
    folder = StudyFolder(root)
    for name, remedy in remedies.items():
        path = root / name
        whole = path.read_bytes()
        path.write_bytes(DAMAGE[kind](whole))
        readers: list[Callable[[Path], object]] = [read, export.named, lambda root: pipeline.run(study_in(root))]
        if kind == "flip" and folder.has_own_digest(name):
            readers = [partial(weights_loaded, name=name)]
        for reading in (*readers, verified) if path.read_bytes() != whole else ():
            told = told_by(reading, root)
            assert f"{name} is damaged" in str(told)
            assert to_remove(told, path) == root / remedy, kind
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
    told = told_by(lambda root: exported(root, tmp_path / "exported"), root)
    assert str(path) in str(told)
    remove(to_remove(told, path))
    comes_back(finished, root, [name])


@pytest.mark.parametrize("kind", ["type", *(pytest.param(k, marks=pytest.mark.combinations) for k in OTHER_DAMAGE)])
def test_what_is_no_result_changes_no_number(finished: Finished, tmp_path: Path, kind: str) -> None:
    """All files of which no number is made, at once: readers do without, or say which to remove until they can."""
    root = shutil.copytree(finished.root, tmp_path / "study", ignore=shutil.ignore_patterns("report"))
    results = {*files(root)}
    others = [path for path in sorted(root.rglob("*")) if path.is_file() and str(path.relative_to(root)) not in results]
    for path in others:
        if kind == "delete":
            path.unlink()
        else:
            path.write_bytes(DAMAGE[kind](path.read_bytes()))
    for reading in (read, export.named, run):
        while told := error_of(reading, root):
            [path] = [path for path in others if str(path) in str(told)]
            remove(to_remove(told, path))
    comes_back(finished, root, results)


@pytest.mark.combinations
def test_what_verify_says_of_a_study_without_a_list_of_its_files_brings_them_back(
    finished: Finished, tmp_path: Path
) -> None:
    """It looks at weights, and at what it reads for that, and says the same to remove whatever the damage."""
    root = shutil.copytree(finished.root, tmp_path / "study")
    folder = StudyFolder(root)
    won = export.record_of(root, "vkd@10")
    learned, weights = folder.learned_record(won.start.key), folder.model_dir(won.start.key) / "model.safetensors"
    inventory.clear(folder)
    removed: dict[Path, set[Path]] = {}
    for path in (folder.settings, learned, weights, folder.delta(won.key)):
        whole = path.read_bytes()
        for kind, damage in DAMAGE.items():
            path.write_bytes(damage(whole))
            if path.suffix == ".json" and kind == "truncate":
                verified(root)  # its last byte ends a line
                continue
            told = told_by(verified, root)
            assert path.name in str(told)
            removed.setdefault(path, set()).add(to_remove(told, path))
        path.write_bytes(whole)
    for found in removed.values():
        [remedy] = found
        inventory.clear(folder)
        remove(remedy)
        comes_back(finished, root, [remedy.relative_to(root).as_posix()])


@pytest.mark.parametrize("name", ["data/base.json", "near.json", "race.json", "unknown.json", "winners.json"])
def test_what_has_the_wrong_type_is_told_without_a_list_of_files_too(
    finished: Finished, tmp_path: Path, name: str
) -> None:
    """By whoever reads it first, with the remedy that brings it back in a study that has a list."""
    root = shutil.copytree(finished.root, tmp_path / "study")
    inventory.clear(StudyFolder(root))
    path = root / name
    path.write_bytes(DAMAGE["type"](path.read_bytes()))
    told = error_of(numbers, root) or error_of(run, root)
    assert told is not None
    assert f"{path} is damaged" in str(told)
    assert to_remove(told, path) == path
