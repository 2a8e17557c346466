"""The reader of the MLLMU-Bench parquet layout, for every benchmark that comes in it.

Classification is zero-shot and the options are not listed in the prompt: whoever scores compares their likelihoods.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from study.benchmarks._mllmu_biography import Biography, biography
from study.benchmarks._mllmu_cells import (
    NOTHING,
    TASK_COLUMNS,
    Row,
    folder_files,
    lessons,
    questions,
    row_pictures,
    rows,
)
from study.benchmarks._mllmu_cells import picture as picture_of
from study.questions import Benchmark, Lesson, Picture, Question, Role, Split
from study.store import file_digest

ASKED = ("ID", "image|images", *TASK_COLUMNS)
FICTITIOUS = ("ID", "biography?")
STRANGERS = "Strangers"  # our extension: pictures of people who are nowhere else in the dataset
ALWAYS = ("Full_Set", "Test_Set", "Retain_Set", "ft_Data")

ByPerson = dict[str, tuple[Question, ...]]


def read(root: Path, name: str) -> Benchmark:
    """Read and validate the dataset in the folder `root` as the benchmark `name`.

    Offered are the forget ratios X in percent for which forget_X and retain_(100-X) are both there. Raises
    `ValueError` that names file, row (from 0 in its file) and ID for whatever is missing, empty, double or damaged.
    Pictures are checked by their headers only and decoded where they are used. Of Full_Set only the IDs are read, and
    the biographies, which label what the files do not.
    """
    ratios = _ratios(root)
    strangers = (root / STRANGERS).is_dir()
    prints = _fingerprint(root, (*ALWAYS, *(f for r in ratios for f in _pair(r)), *([STRANGERS] if strangers else [])))
    pictures: dict[str, Picture] = {}
    known = {row.id: biography(row.cells.get("biography")) for row in _unique(rows(root, "Full_Set", FICTITIOUS))}
    taught = tuple(
        lesson
        for row in rows(root, "ft_Data", ("ID", "image", "metadata"))
        for lesson in lessons(row, row.id, pictures, known.get(row.id, NOTHING))
    )
    real = _asked(root, "Retain_Set", "real", pictures, {}, collide=known)
    sets = {
        ratio: (
            _asked(root, f"forget_{ratio}", "forget", pictures, known),
            _asked(root, f"retain_{100 - ratio}", "retain", pictures, known),
        )
        for ratio in ratios
    }
    everybody = {person for forget, _ in sets.values() for person in forget}
    test = _asked(root, "Test_Set", "test", pictures, known, only=everybody)
    return Benchmark(
        name=name,
        fingerprint=prints,
        splits={r: _split(r, taught, forget, test, retain, real) for r, (forget, retain) in sets.items()},
        strangers=_strangers(root, pictures) if strangers else (),
    )


def _split(
    ratio: int, taught: tuple[Lesson, ...], forget: ByPerson, test: ByPerson, retain: ByPerson, real: ByPerson
) -> Split:
    where, kept = _pair(ratio)
    known = {lesson.person for lesson in taught}
    _nobody(forget.keys() & retain.keys(), f"IDs both in {where} and in {kept}", "a person is forgotten or retained")
    _nobody(forget.keys() - test.keys(), f"IDs of {where} without row in Test_Set", "download Test_Set again")
    _nobody(forget.keys() - known, f"IDs of {where} without lesson in ft_Data", "download ft_Data again")
    tested = {person: test[person] for person in forget}
    asked = tuple(q for people in (forget, tested, retain, real) for some in people.values() for q in some)
    return Split(ratio, frozenset(forget), taught, asked)


def _asked(
    root: Path,
    folder: str,
    role: Role,
    pictures: dict[str, Picture],
    known: Mapping[str, Biography],
    *,
    only: set[str] | None = None,
    collide: Iterable[str] = (),
) -> ByPerson:
    """The questions of a folder by person, of some people or of all. IDs that collide get a prefix.

    `known` holds the biographies by ID.
    """
    asked: ByPerson = {}
    taken = frozenset(collide)
    for row in _unique(rows(root, folder, ASKED)):
        if only is None or row.id in only:
            person = f"real-{row.id}" if row.id in taken else row.id
            about = known.get(row.id, NOTHING)
            asked[person] = tuple(questions(row, role, person, row_pictures(row, pictures), about))
    return asked


def _unique(found: Iterable[Row]) -> Iterator[Row]:
    """The rows as they come. Raises `ValueError` where an ID comes again."""
    places: dict[str, str] = {}
    for row in found:
        if row.id in places:
            raise row.error(f"the same ID as in {places[row.id]}", "remove one of them")
        places[row.id] = str(row)
        yield row


def _strangers(root: Path, pictures: dict[str, Picture]) -> tuple[Picture, ...]:
    return tuple(picture_of(row.cells["image"], row, pictures) for row in rows(root, STRANGERS, ("image",)))


def _ratios(root: Path) -> list[int]:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give the folder that holds Full_Set, ft_Data, forget_5 ...")
    named = (re.fullmatch(r"forget_(\d{1,2})", path.name) for path in root.iterdir())
    ratios = sorted(int(match[1]) for match in named if match and (root / _pair(int(match[1]))[1]).is_dir())
    if not ratios:
        raise ValueError(
            f"{root}: no pair of folders forget_X and retain_(100-X); download e.g. forget_5 and retain_95"
        )
    return ratios


def _pair(ratio: int) -> tuple[str, str]:
    return f"forget_{ratio}", f"retain_{100 - ratio}"


def _fingerprint(root: Path, folders: Iterable[str]) -> str:
    """Twelve hexadecimal digits of the names and contents of all files that are read."""
    digest = hashlib.sha256()
    for path in sorted(file for folder in set(folders) for file in folder_files(root, folder)):
        digest.update(f"{path.relative_to(root).as_posix()}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()[:12]


def _nobody(people: Iterable[str], problem: str, remedy: str) -> None:
    some = sorted(people)
    if some:
        few = ", ".join(islice(some, 5)) + (" ..." if len(some) > 5 else "")
        raise ValueError(f"{len(some)} {problem} ({few}): {remedy}")
