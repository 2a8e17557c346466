"""The files of FIUBench, read strictly: whatever is wrong names its file, row and ID; nothing outside is opened."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from study.benchmarks._shared.defects import count_row, one_row, skip
from study.benchmarks._shared.rows import Row, mapping, nobody, short, text, texts
from study.benchmarks._shared.text_files import Files
from study.data.facts import plain
from study.data.picture import Picture

FULL, SPLIT = "full.json", "split.json"
PEOPLE = 400  # as many as the authors use of full.json


@dataclass(frozen=True)
class Fact:
    """One of somebody's questions and answers; `index` counts from 0."""

    index: int
    question: str
    answer: str
    keywords: tuple[str, ...]
    wordings: tuple[str, ...]
    paraphrased: str
    wrong: tuple[str, ...]
    as_written: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """The question and its wordings as the file has them, by what is made of them here."""
    keywords_as_written: tuple[str, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Person:
    """Somebody with a face; `namesake` if another has the same name."""

    id: str
    name: str
    picture: Picture = field(repr=False)
    facts: tuple[Fact, ...] = field(repr=False)
    namesake: bool = False
    where: str = ""


def read_people(files: Files) -> dict[str, Person]:
    """The first 400 people by ID. Raises `ValueError` for whatever is missing, empty, double or damaged."""
    found: dict[str, Person] = {}
    for number, cells in enumerate(_objects(files)[:PEOPLE]):
        count_row()
        with one_row():
            person = _person(files, Row(FULL, number, mapping(cells, Row(FULL, number, {}), "it")))
            if person.id in found:
                raise Row(FULL, number, {}, person.id).odd("the same unique_id as in a row before", "remove one")
            found[person.id] = person
    names = Counter(plain(person.name) for person in found.values())
    return {id: replace(person, namesake=names[plain(person.name)] > 1) for id, person in found.items()}


def read_sets(files: Files, people: Mapping[str, Person]) -> tuple[dict[int, list[str]], list[str]]:
    """The IDs of each forget set by its ratio in percent, and all of the retain sets.

    Raises `ValueError` for somebody in two forget sets, in both kinds or unknown, and if there is one forget set only.
    """
    sets, row = _sets(files), Row(SPLIT, 0, {})
    forget: dict[int, list[str]] = {}
    retain: dict[str, None] = {}
    for name, value in sets.items():
        kind = re.fullmatch(r"(forget|retain)(\d{1,2})", name)
        if kind:
            ids = list(texts(value, row, name))
            nobody({id for id in ids if ids.count(id) > 1}, f"IDs twice in {name} of {SPLIT}", "remove one")
            nobody(set(ids) - people.keys(), f"IDs of {name} in {SPLIT} that are not in {FULL}", "download both again")
            if kind[1] == "forget":
                others = {id for ids in forget.values() for id in ids}
                nobody(others & set(ids), f"IDs of {name} in {SPLIT} that another forget set has", "download it again")
                forget[int(kind[2])] = ids
            else:
                retain |= dict.fromkeys(ids)
    if len(forget) < 2 or not retain:
        raise ValueError(
            f"{SPLIT}: it has {', '.join(sets) or 'nothing'}; two sets forgetX are needed, as who is in the other ones "
            "is neither forgotten nor retained, and one retainX; download it again"
        )
    both = retain.keys() & {id for ids in forget.values() for id in ids}
    nobody(both, f"IDs both in a forget and in a retain set of {SPLIT}", "a person is forgotten or retained")
    return dict(sorted(forget.items())), list(retain)


def read_set(files: Files, name: str) -> frozenset[str]:
    """The IDs of one set, none if there is no such set."""
    return frozenset(texts(found, Row(SPLIT, 0, {}), name) if (found := _sets(files).get(name)) else ())


def _sets(files: Files) -> Mapping[str, Any]:
    try:
        found = json.loads(files.text(SPLIT))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{SPLIT}: {error}; download it again") from error
    return mapping(found, Row(SPLIT, 0, {}), "it")


def _objects(files: Files) -> list[Any]:
    """The rows of full.json: one JSON array, or one object a line."""
    content = files.text(FULL)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = list(_lines(content))
    if not isinstance(found, list):
        found = [found]
    if not found:
        raise ValueError(f"{FULL}: it holds nobody; download it again")
    return found


def _lines(content: str) -> Iterator[Any]:
    for number, line in enumerate(line for line in content.splitlines() if line.strip()):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Row(FULL, number, {}).error(f"not JSON ({error})", "download it again") from error


def _person(files: Files, row: Row) -> Person:
    row = replace(row, id=text(row.cells.get("unique_id"), row, "unique_id"))
    name = text(row.cells.get("name"), row, "name")
    items = row.cells.get("qa_list")
    if not isinstance(items, list) or not items:
        raise row.error(f"qa_list is {short(items)}, not a list of questions")
    facts: list[Fact] = []
    for index, item in enumerate(items):
        with one_row():
            facts.append(_fact(index, mapping(item, row, f"qa_list {index}"), row))
    if not facts:
        raise row.error("none of its questions can be read")
    return Person(row.id, name, _picture(files, row), tuple(facts), where=str(row))


def _fact(index: int, item: Mapping[str, Any], row: Row) -> Fact:
    what = f"qa_list {index}"
    question, answer = (text(item.get(key), row, f"{what}: {key}") for key in ("question", "answer"))
    wordings, wrong = (
        texts(item.get(key), row, f"{what}: {key}") for key in ("paraphrased_question", "perturbed_answer")
    )
    said = item.get("paraphrased_answer")
    other = text(said[0] if isinstance(said, list) and said else said, row, f"{what}: paraphrased_answer")
    keywords = _keywords(item.get("keywords"), row, f"{what}: keywords")
    if plain(answer) in map(plain, wrong):
        raise row.odd(f"{what}: perturbed_answer holds the right answer {answer!r}")
    listed = item["paraphrased_question"]
    raw = (item["question"], *([listed] if isinstance(listed, str) else listed))
    as_written = {short: str(whole) for short, whole in zip((question, *wordings), raw, strict=True)}
    told = tuple(keyword for keyword in _given(item.get("keywords")) if isinstance(keyword, str))
    return Fact(index, question, answer, keywords, wordings, other, wrong, as_written, told)


def _keywords(value: object, row: Row, what: str) -> tuple[str, ...]:
    """The keywords that are texts: without any, no reply is marked by them, and the rest of the question stays."""
    given = _given(value)
    kept: list[str] = []
    for keyword in given:
        with one_row():
            kept.append(text(keyword, row, what))
    if not given:
        skip(f"{row}: {what} are {short(value)}, so no reply is marked by them; repair or remove the row")
    return tuple(kept)


def _given(value: object) -> list[Any]:
    return [value] if isinstance(value, str) else value if isinstance(value, list) else []


def _picture(files: Files, row: Row) -> Picture:
    """The picture at image_path, given from the folder above `dataset` on, from `dataset` on, or as on another machine.

    An absolute path is that of the authors' machine: what follows its last `dataset` is looked for in this folder.
    """
    said = text(row.cells.get("image_path"), row, "image_path")
    path = PurePosixPath(said)
    if path.is_absolute() and "dataset" in path.parts:
        last = len(path.parts) - 1 - path.parts[::-1].index("dataset")
        path = PurePosixPath(*path.parts[last:])
    if path.is_absolute() or ".." in path.parts:
        raise row.error(f"image_path {said!r} leads out of the folder", "give a path inside of it")
    inside = PurePosixPath(*path.parts[1:]) if path.parts[:1] == ("dataset",) else path
    try:
        picture = Picture(files.read(str(inside)), f"{row}, {inside}")
        picture.check()
    except ValueError as error:
        raise row.error(f"image_path {said!r}: {error}") from error
    return picture
