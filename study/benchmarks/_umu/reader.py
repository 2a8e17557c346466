"""The folders of UMU-Bench, read strictly and put together."""

from __future__ import annotations

from collections.abc import Collection, Set
from pathlib import Path

from study.benchmarks._shared.defects import one_row
from study.benchmarks._shared.derived import reworded
from study.benchmarks._shared.rows import (
    fingerprint,
    folder_files,
    forget_ratios,
    needed_picture,
    nobody,
    pair,
    rows,
    unique,
)
from study.benchmarks._umu.cells import TASKS, lessons, questions
from study.core.terms import Role
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.picture import Picture

DATASET = "linbojunzi/UMU-bench"
ASKED = ("ID", "image", *TASKS)
REAL = ("Real_Person_Set", "real_person")  # the first is the dataset's name, the second that in the authors' code

KINDS: tuple[Role, Role] = ("forget", "retain")

ByPerson = dict[str, tuple[Question, ...]]


def read(root: Path) -> Benchmark:
    """Read and validate the dataset in `root`, for every X of which forget_X and retain_(100-X) are both there.

    Raises `ValueError` that names file, row (from 0 in its file) and ID for whatever is missing, empty or damaged.
    """
    ratios = forget_ratios(root)
    famous = next((name for name in REAL if (root / name).is_dir()), REAL[0])
    folders = ["Full_Set", famous, *(name for ratio in ratios for name in pair(ratio))]
    prints = fingerprint(root, (file for name in folders for file in folder_files(root, name, DATASET)))
    pictures: dict[str, Picture] = {}
    taught = _taught(root, pictures)
    known = {lesson.person for lesson in taught}
    real = _asked(root, famous, "real", pictures, known)
    splits: dict[int, Split] = {}
    for ratio in ratios:
        forget, retain = (_asked(root, name, role, pictures) for name, role in zip(pair(ratio), KINDS, strict=True))
        with one_row():
            _check(ratio, forget.keys(), retain.keys(), known)
            told, kept = _all(forget), (*_all(retain), *_all(real))
            splits[ratio] = Split(ratio, frozenset(forget), taught, (*told, *map(reworded, told), *kept))
    return Benchmark(name="umu", fingerprint=prints, splits=splits)


def _check(ratio: int, forget: Set[str], retain: Set[str], known: Set[str]) -> None:
    where, kept = pair(ratio)
    nobody(forget & retain, f"IDs both in {where} and in {kept}", "a person is forgotten or retained")
    nobody(forget - known, f"IDs of {where} without row in Full_Set", "download Full_Set again")


def _all(people: ByPerson) -> tuple[Question, ...]:
    return tuple(question for some in people.values() for question in some)


def _taught(root: Path, pictures: dict[str, Picture]) -> tuple[Lesson, ...]:
    found: list[Lesson] = []
    for row in unique(rows(root, "Full_Set", ("ID", "image", "MM_QA", "UM_QA"), DATASET)):
        with one_row():
            mine = tuple(lessons(row, needed_picture(row.cells["image"], row, pictures)))
            if not mine:
                raise row.error("none of its lessons can be read")
            found += mine
    return tuple(found)


def _asked(root: Path, folder: str, role: Role, pictures: dict[str, Picture], taken: Collection[str] = ()) -> ByPerson:
    """The questions of a folder by person. IDs that are taken get a prefix."""
    asked: ByPerson = {}
    for row in unique(rows(root, folder, ASKED, DATASET)):
        with one_row():
            person = f"real-{row.id}" if row.id in taken else row.id
            shown = needed_picture(row.cells["image"], row, pictures)
            asked[person] = tuple(questions(row, role, person, shown))
    return asked
