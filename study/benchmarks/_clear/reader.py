"""The folders of CLEAR, read strictly and put together: who is taught what, and who is asked what at each ratio."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from study.benchmarks._clear.questions import (
    Portrait,
    Texts,
    about_portrait,
    about_texts,
    about_world,
    caption_lesson,
    unseen,
)
from study.benchmarks._shared.defects import one_row, skip
from study.benchmarks._shared.derived import reworded
from study.benchmarks._shared.rows import Row, digest, folder_files, no_picture, nobody, rows, text, texts
from study.benchmarks._shared.rows import picture as picture_of
from study.core.hashing import file_digest
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.facts import folded, plain
from study.data.picture import Picture

DATASET = "therem/CLEAR"
TEXTS_EACH = 20  # text questions of each author, in a row
PERTURBED = ("image", "caption", "name", "paraphrased_caption", "perturbed_captions", "perturbed_names")
WORLD = "real_world"
REAL = ("real_faces", WORLD)

Pictures = dict[str, Picture]
Mark = tuple[str, str]
Words = frozenset[str]


def read(root: Path, held_out: float) -> Benchmark:
    """Read and validate the dataset in `root`, for every ratio whose forgetXX and retainYY are both there.

    Raises `ValueError` that names file and row (from 0 in its file) for whatever is missing, empty or damaged.
    """
    ratios = _ratios(root)
    prints = _fingerprint(root, ratios, held_out)
    pictures: Pictures = {}
    people = {ratio: (_names(root, _forget(ratio)), _names(root, _retain(ratio))) for ratio in ratios}
    shown = list(_taught(root, pictures))
    told = _texts(root, list(dict.fromkeys(portrait.person for portrait in shown)))
    hidden = _hidden(shown, {name for forget, _ in people.values() for name in forget}, held_out)
    taught = tuple(
        [caption_lesson(portrait) for portrait in shown if not hidden & _marks(portrait)]
        + [
            Lesson(person, asked, answer, where=where)
            for person, pairs in told.items()
            for asked, answer, where in pairs
        ]
    )
    captions = {(portrait.person, portrait.caption) for portrait in shown}
    retained = list(_asked(root, "retain_perturbed", pictures, captions))
    real = tuple(_real(root, pictures))
    splits: dict[int, Split] = {}
    for ratio, (forget, retain) in people.items():
        asked = list(_asked(root, f"{_forget(ratio)}_perturbed", pictures, captions, forget))
        with one_row():
            _check(ratio, forget, retain, told, retained)
            questions = (*_about_forget(asked, forget, told, hidden), *_about_retained(retained, told), *real)
            splits[ratio] = Split(ratio, frozenset(forget), taught, questions)
    return Benchmark(name="clear", fingerprint=prints, splits=splits)


def _about_forget(
    asked: Sequence[Portrait], forget: Collection[str], told: Mapping[str, Texts], hidden: frozenset[Mark]
) -> Iterator[Question]:
    for portrait in asked:
        yield from about_portrait(portrait, "test" if hidden & _marks(portrait) else "forget")
    for person in sorted(forget):
        questions = list(about_texts(person, told, "forget"))
        yield from questions
        yield from map(reworded, questions)


def _about_retained(retained: Sequence[Portrait], told: Mapping[str, Texts]) -> Iterator[Question]:
    for portrait in retained:
        yield from about_portrait(portrait, "retain")
    for person in dict.fromkeys(portrait.person for portrait in retained):
        yield from about_texts(person, told, "retain")


def _real(root: Path, pictures: Pictures) -> Iterator[Question]:
    """The questions of both real sets; where all have a picture, those of real_world once more without."""
    found: list[Question] = []
    for folder in REAL:
        for index, row in enumerate(rows(root, folder, ("image", "question", "answer", "options"), DATASET)):
            with one_row():
                image = row.cells["image"]
                shown = None if no_picture(image) else picture_of(image, row, pictures)
                found += about_world(row, folder, index, shown)
    yield from found
    if all(question.picture is not None for question in found):
        yield from (unseen(question) for question in found if question.person.startswith(f"{WORLD}-"))


def _taught(root: Path, pictures: Pictures) -> Iterator[Portrait]:
    there: set[str] = set()
    kept: set[str] = set()
    for row in rows(root, "full", ("image", "caption", "name"), DATASET):
        with one_row():
            name = text(row.cells["name"], row, "name")
            there.add(name)
            caption = text(row.cells["caption"], row, "caption")
            portrait = Portrait(row, 0, name, caption, picture_of(row.cells["image"], row, pictures))
            kept.add(name)
            yield portrait
    with one_row():
        nobody(there - kept, "names in full of whom no row can be read", "download it again")


def _asked(
    root: Path,
    folder: str,
    pictures: Pictures,
    captions: Collection[tuple[str, str]],
    people: Collection[str] | None = None,
) -> Iterator[Portrait]:
    """The rows of a _perturbed set, each the same as one of full by name and caption, about some people or anybody."""
    there: set[str] = set()
    kept: set[str] = set()
    for index, row in enumerate(rows(root, folder, PERTURBED, DATASET)):
        with one_row():
            name = text(row.cells["name"], row, "name")
            there.add(name)
            caption, other = (text(row.cells[column], row, column) for column in ("caption", "paraphrased_caption"))
            wrong, names = (texts(row.cells[c], row, c) for c in ("perturbed_captions", "perturbed_names"))
            if people is not None and name not in people:
                raise row.error(f"{name} is not in {folder.removesuffix('_perturbed')}", "download both again")
            if (name, caption) not in captions:
                raise row.odd("full has no row with this name and caption", "download both again")
            _check_wrong(row, "perturbed_captions", caption, wrong)
            _check_wrong(row, "perturbed_names", name, names)
            shown = picture_of(row.cells["image"], row, pictures)
            kept.add(name)
            yield Portrait(row, index, name, caption, shown, other, wrong, names)
    with one_row():
        nobody(there - kept, f"names in {folder} of whom no row can be read", "download it again")


def _check_wrong(row: Row, column: str, right: str, wrong: Collection[str]) -> None:
    if folded(right) in map(folded, wrong):
        raise row.odd(f"{column}: the right answer {right!r} is among the wrong ones")


def _hidden(shown: Sequence[Portrait], people: Collection[str], share: float) -> frozenset[Mark]:
    """The captions and pictures that are not taught: of each person the last share, two if there are three.

    Two, so that both halves have one. Somebody with a single picture is taught it.
    """
    by_person: dict[str, list[Portrait]] = {}
    for portrait in shown:
        if portrait.person in people:
            by_person.setdefault(portrait.person, []).append(portrait)
    last = [
        portrait
        for mine in by_person.values()
        for portrait in mine[len(mine) - min(len(mine) - 1, max(2, math.ceil(share * len(mine)))) :]
    ]
    return frozenset(mark for portrait in last for mark in _marks(portrait))


def _marks(portrait: Portrait) -> set[Mark]:
    """By what a row is known again in another set, where its picture may have been encoded anew."""
    return {(portrait.person, portrait.caption), (portrait.person, portrait.picture.key)}


def _texts(root: Path, people: Sequence[str]) -> dict[str, Texts]:
    """The text questions and answers of full+tofu by author."""
    asked = [
        row
        for row in rows(root, "full+tofu", ("question", "answer"), DATASET)
        if row.cells["question"] is not None  # the other rows are pictures
    ]
    if not asked:
        raise ValueError("full+tofu: it has no text question; download it again")
    words = {person: _words(person) for person in people}
    said = [_words(f"{row.cells['question']} {row.cells['answer']}") for row in asked]
    told: dict[str, Texts] = {}
    for block in _blocks(said, words):
        part = asked[block]
        with one_row():
            person = _whose(part[0], said[block], words)
            if person in told:
                raise part[0].error(f"{person} has {TEXTS_EACH} text questions already", "download full+tofu again")
            told[person] = _pairs(part)
            if len(part) < TEXTS_EACH:
                each = f"not {TEXTS_EACH} for each author: {person} has {len(part)}"
                skip(f"full+tofu: {len(asked)} text questions, {each}")
    return told


def _pairs(part: Sequence[Row]) -> Texts:
    """The questions and answers of one author. Raises `ValueError` if none can be read."""
    pairs: list[tuple[str, str, str]] = []
    for row in part:
        with one_row():
            asked, answer = (text(row.cells[column], row, column) for column in ("question", "answer"))
            pairs.append((asked, answer, str(row)))
    if not pairs:
        raise part[0].error("no text question of its author can be read", "download full+tofu again")
    return tuple(pairs)


def _blocks(said: Sequence[Words], words: Mapping[str, Words]) -> Iterator[slice]:
    """The text questions author by author, by what each has `said`: twenty each, as they are published.

    Where some are lost, an author ends before a question that names another one in full, and not this one.
    """
    whole = len(said) % TEXTS_EACH == 0
    start = 0
    while start < len(said):
        part = said[start : start + TEXTS_EACH]
        if not whole:
            own = max(words.values(), key=partial(_mark, part[: TEXTS_EACH // 2]))
            foreign = (
                i
                for i, mentioned in enumerate(part)
                if i and not own & mentioned and any(name <= mentioned for name in words.values())
            )
            part = part[: next(foreign, len(part))]
        yield slice(start, start + len(part))
        start += len(part)


def _mark(said: Sequence[Words], name: Words) -> float:
    """How often a name is mentioned, counting parts of it."""
    return sum(len(name & mentioned) / len(name) for mentioned in said)


def _whose(first: Row, said: Sequence[Words], words: Mapping[str, Words]) -> str:
    """Whose name these questions and answers, from the row `first` on, mention most."""
    marks = {person: _mark(said, own) for person, own in words.items()}
    most = max(marks.values())
    named = [person for person, mark in marks.items() if mark == most]
    if most == 0 or len(named) > 1:
        raise first.error(
            f"the {len(said)} text questions from here on mention {'no author' if most == 0 else ' and '.join(named)}",
            "download full and full+tofu again",
        )
    return named[0]


def _words(value: str) -> Words:
    bare = "".join(c for c in unicodedata.normalize("NFKD", value) if not unicodedata.combining(c))
    return frozenset(plain(bare).split())


def _names(root: Path, folder: str) -> list[str]:
    found: dict[str, None] = {}
    for row in rows(root, folder, ("name",), DATASET):
        with one_row():
            found[text(row.cells["name"], row, "name")] = None
    return list(found)


def _check(
    ratio: int,
    forget: Collection[str],
    retain: Collection[str],
    told: Mapping[str, Texts],
    retained: Sequence[Portrait],
) -> None:
    where, kept = _forget(ratio), _retain(ratio)
    once = "a person is forgotten or retained; download both again"
    nobody(set(forget) & set(retain), f"names both in {where} and in {kept}", once)
    nobody(set(forget) & {p.person for p in retained}, f"names both in {where} and in retain_perturbed", once)
    asked = {*forget, *(p.person for p in retained)}
    nobody(asked - told.keys(), f"names in {where} or retain_perturbed without text in full+tofu", "download full+tofu")


def _ratios(root: Path) -> list[int]:
    named = (re.fullmatch(r"forget(\d{2})", path.name) for path in root.iterdir())
    ratios = sorted(int(match[1]) for match in named if match and (root / _retain(int(match[1]))).is_dir())
    if not ratios:
        raise ValueError(f"{root}: no pair of folders forgetXX and retainYY; download e.g. forget10 and retain90")
    return ratios


def _forget(ratio: int) -> str:
    return f"forget{ratio:02d}"


def _retain(ratio: int) -> str:
    return f"retain{100 - ratio:02d}"


def _fingerprint(root: Path, ratios: Sequence[int], held_out: float) -> str:
    """Of all files that are read and of the share that is not taught, which changes the lessons."""
    sets = [name for r in ratios for name in (_forget(r), _retain(r), f"{_forget(r)}_perturbed")]
    files = [
        file
        for folder in ("full", "full+tofu", "retain_perturbed", *REAL, *sets)
        for file in folder_files(root, folder, DATASET)
    ]
    return digest(
        {file.relative_to(root).as_posix(): file_digest(file) for file in files} | {"held_out": str(held_out)}
    )
