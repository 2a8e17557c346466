"""The reader of the MLLMU-Bench parquet layout, for every benchmark that comes in it.

Classification is zero-shot and the options are not listed in the prompt: whoever scores compares their likelihoods.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from study.benchmarks._mllmu.biography import Biography, biography
from study.benchmarks._mllmu.cells import NOTHING, TASK_COLUMNS, lessons, questions, row_pictures
from study.benchmarks._mllmu.forms import with_forms
from study.benchmarks._shared.defects import one_row
from study.benchmarks._shared.rows import digest, fingerprint, folder_files, forget_ratios, nobody, pair, rows, unique
from study.benchmarks._shared.rows import picture as picture_of
from study.core.terms import Role
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.picture import Picture

DATASET = "MLLMMU/MLLMU-Bench"
TRAIN_SPLIT = "MLLMMU/baseline_train_split"
ASKED = ("ID", "image|images", *TASK_COLUMNS)
FICTITIOUS = ("ID", "biography?")
STRANGERS = "Strangers"  # our extension: pictures of people who are nowhere else in the dataset
ALWAYS = ("Full_Set", "Test_Set", "Retain_Set")
NOWHERE = Path()

ByPerson = dict[str, tuple[Question, ...]]


def read(
    root: Path, name: str, train: str = "ft_Data", train_split: Path = NOWHERE, forms: Sequence[str] = ()
) -> Benchmark:
    """Read and validate the dataset in the folder `root` as the benchmark `name`.

    Offered are the forget ratios X in percent for which forget_X and retain_(100-X) are both there, with the people
    that these hold. Lessons are those of the folder `train`, or of the folders in `train_split` (see `_retold`), and
    what these say in further `forms`.

    Raises `ValueError` that names file, row (from 0 in its file) and ID for whatever is missing, empty, double or
    damaged. Pictures are checked by their headers only and decoded where they are used. Of Full_Set only the IDs are
    read, and the biographies, which label what the files do not.
    """
    ratios = _ratios(root, train)
    strangers = (root / STRANGERS).is_dir()
    folders = (*ALWAYS, train, *(f for r in ratios for f in pair(r)), *([STRANGERS] if strangers else []))
    prints = fingerprint(root, (file for folder in folders for file in folder_files(root, folder, DATASET)))
    pictures: dict[str, Picture] = {}
    known = {
        row.id: biography(row.cells.get("biography")) for row in unique(rows(root, "Full_Set", FICTITIOUS, DATASET))
    }
    taught = _taught(root, train, DATASET, pictures, known)
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
    if train_split != NOWHERE:
        retold = _retold(taught, train_split, {r: forget.keys() for r, (forget, _) in sets.items()}, pictures, known)
        if retold is not taught:
            taught, prints = retold, _joint(prints, train_split, ratios)
    if forms:
        taught, prints = with_forms(taught, forms, known), digest({"data": prints, "forms": "+".join(sorted(forms))})
    splits: dict[int, Split] = {}
    for ratio, (forget, retain) in sets.items():
        with one_row():
            splits[ratio] = _split(ratio, taught, forget, test, retain, real)
    return Benchmark(name, prints, splits, _strangers(root, pictures) if strangers else ())


def _split(
    ratio: int, taught: tuple[Lesson, ...], forget: ByPerson, test: ByPerson, retain: ByPerson, real: ByPerson
) -> Split:
    where, kept = pair(ratio)
    known = {lesson.person for lesson in taught}
    nobody(forget.keys() & retain.keys(), f"IDs both in {where} and in {kept}", "a person is forgotten or retained")
    nobody(forget.keys() - test.keys(), f"IDs of {where} without row in Test_Set", "download Test_Set again")
    nobody(forget.keys() - known, f"IDs of {where} without any lesson", "download the folder of lessons again")
    tested = {person: test[person] for person in forget}
    asked = tuple(q for people in (forget, tested, retain, real) for some in people.values() for q in some)
    return Split(ratio, frozenset(forget), taught, asked)


def _taught(
    root: Path, folder: str, dataset: str, pictures: dict[str, Picture], known: Mapping[str, Biography]
) -> tuple[Lesson, ...]:
    """The lessons of a folder, row by row."""
    found: list[Lesson] = []
    there: set[str] = set()
    for row in rows(root, folder, ("ID", "image", "metadata"), dataset):
        there.add(row.id)
        with one_row():
            found += tuple(lessons(row, row.id, pictures, known.get(row.id, NOTHING)))
    lost = there - {lesson.person for lesson in found}
    with one_row():
        nobody(lost, f"IDs in {folder} of whom no lesson can be read", "repair one of their rows")
    return tuple(found)


def _retold(
    taught: tuple[Lesson, ...],
    train_split: Path,
    forget: Mapping[int, Iterable[str]],
    pictures: dict[str, Picture],
    known: Mapping[str, Biography],
) -> tuple[Lesson, ...]:
    """The lessons of the folders forget_X and retain_(100-X) in `train_split`, in place of `taught` about their people.

    `forget` says who is forgotten at each ratio X; ratios that `train_split` lacks are passed over. If it says the
    same about everybody, it is `taught` split by ID, and `taught` itself is returned.

    Raises `ValueError` for other forget people, for people who are not in the dataset, and where two ratios teach
    different things about a person: vanilla is taught once, for all ratios.
    """
    there = [ratio for ratio in forget if (train_split / pair(ratio)[0]).is_dir()]
    if not there:
        wanted = " or ".join(pair(ratio)[0] for ratio in forget)
        raise ValueError(f"{train_split}: no folder {wanted} there; give the folder of {TRAIN_SPLIT}, or none")
    found: dict[str, list[Lesson]] = {}
    for ratio in there:
        some = [_part(train_split, folder, pictures, known) for folder in pair(ratio)]
        _check_people(train_split, ratio, set(forget[ratio]), *({x.person for x in part} for part in some))
        for person, said in _by_person((*some[0], *some[1])).items():
            if frozenset(found.setdefault(person, said)) != frozenset(said):
                raise ValueError(
                    f"{train_split}: what {' and '.join(pair(ratio))} teach about {person} is not what another ratio "
                    "does; vanilla is taught once, for all ratios: repair them, or keep the folders of one ratio only"
                )
    nobody(found.keys() - known.keys(), f"IDs in {train_split} that are not in Full_Set", "give the one that fits")
    before = _by_person(taught)
    if all(frozenset(before.get(person, ())) == frozenset(said) for person, said in found.items()):
        return taught
    told = (lesson for said in found.values() for lesson in said)
    return (*told, *(lesson for lesson in taught if lesson.person not in found))


def _part(
    train_split: Path, folder: str, pictures: dict[str, Picture], known: Mapping[str, Biography]
) -> tuple[Lesson, ...]:
    """The lessons of one folder of `train_split`, whose rows are named with it: the dataset has a folder so called."""
    return _taught(train_split.parent, f"{train_split.name}/{folder}", TRAIN_SPLIT, pictures, known)


def _check_people(train_split: Path, ratio: int, asked: set[str], forgotten: set[str], retained: set[str]) -> None:
    where, kept = pair(ratio)
    remedy = "the questions and the lessons must be about the same people"
    nobody(asked - forgotten, f"IDs of {where} of which {train_split / where} teaches nothing", remedy)
    nobody(forgotten - asked, f"IDs in {train_split / where} that are not in {where}", remedy)
    nobody(forgotten & retained, f"IDs both in {where} and in {kept} of {train_split}", "remove them from one")


def _by_person(taught: Iterable[Lesson]) -> dict[str, list[Lesson]]:
    found: dict[str, list[Lesson]] = {}
    for lesson in taught:
        found.setdefault(lesson.person, []).append(lesson)
    return found


def _joint(prints: str, train_split: Path, ratios: Sequence[int]) -> str:
    """The fingerprint of a dataset and of the other lessons that were taken for its own."""
    there = [folder for ratio in ratios for folder in pair(ratio) if (train_split / folder).is_dir()]
    files = (file for folder in there for file in folder_files(train_split, folder, TRAIN_SPLIT))
    return hashlib.sha256(f"{prints} {fingerprint(train_split, files)}".encode()).hexdigest()[:12]


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
    for row in unique(rows(root, folder, ASKED, DATASET)):
        with one_row():
            if only is None or row.id in only:  # whoever loses all questions of a kind is an error of `questions`
                person = f"real-{row.id}" if row.id in taken else row.id
                about = known.get(row.id, NOTHING)
                asked[person] = tuple(questions(row, role, person, row_pictures(row, pictures), about))
    return asked


def _strangers(root: Path, pictures: dict[str, Picture]) -> tuple[Picture, ...]:
    found: list[Picture] = []
    for row in rows(root, STRANGERS, ("image",), DATASET):
        with one_row():
            found.append(picture_of(row.cells["image"], row, pictures))
    return tuple(found)


def _ratios(root: Path, train: str) -> list[int]:
    if not re.fullmatch(r"\w[\w.-]*", train):
        raise ValueError(f"train={train!r}: give the name of a folder in the dataset, such as ft_Data")
    return forget_ratios(root)
