"""Who is in somebody's own dataset: people.csv or people.jsonl, their pictures, and who asked to be forgotten."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from study.benchmarks._shared.defects import count_row, one_row
from study.benchmarks._shared.text_files import Files, Line, tidy
from study.data.facts import folded
from study.data.picture import Picture

TABLES = ("people.csv", "people.jsonl")
IMAGES = "images"
FORGET = "forget.txt"
NO_ATTRIBUTES = ("id", "name", "role")
HELD_OUT = 4  # of so many pictures of a person the last is not taught
FORBIDDEN = re.compile(r'^\.|[/\\:*?"<>|]')  # an ID is the name of a folder or file, on every system


@dataclass(frozen=True)
class Person:
    """Somebody with a name, a value for each attribute that is known, and pictures.

    `held_out` are the pictures that nobody is taught; empty if there is only one. `real` is whether the role says so.
    """

    id: str
    name: str
    values: Mapping[str, str] = field(hash=False)
    taught: tuple[Picture, ...] = field(repr=False)
    held_out: tuple[Picture, ...] = field(repr=False)
    real: bool = False
    where: str = ""


def read_people(files: Files) -> tuple[Person, ...]:
    """Everybody with their pictures, in the order of their IDs, whatever that of the lines.

    Raises `ValueError` that names file and line, or picture, for what is missing, double, unknown or damaged.
    """
    lines = files.table(_table(files), NO_ATTRIBUTES[:2])
    ids = _ids(lines)
    pictures = _pictures(files, ids.keys())
    names: dict[str, Line] = {}
    found = []
    for id, line in sorted(ids.items()):
        with one_row():
            found.append(_person(id, line, pictures.get(id, []), names))
    return tuple(found)


def attributes(people: Iterable[Person]) -> tuple[str, ...]:
    """The attributes of which somebody has a value, sorted. Raises `ValueError` if there are none."""
    found = tuple(sorted({attribute for person in people for attribute in person.values}))
    if not found:
        raise ValueError("people.csv: only names; add a column for each attribute, such as residence")
    return found


def read_forget(files: Files, people: Sequence[Person]) -> frozenset[str]:
    """The IDs in forget.txt, one a line; nobody without the file. Lines that begin with # are notes.

    Raises `ValueError` that names the line of an ID that is unknown, double or that of a real person.
    """
    if other := files.misnamed(FORGET):
        raise ValueError(
            f"{other[0]}: not read; who asked to be forgotten stands in {FORGET}, one id a line: rename or remove it"
        )
    if not files.has(FORGET):
        return frozenset()
    real = {person.id: person.real for person in people}
    found: dict[str, Line] = {}
    for number, text in enumerate(files.text(FORGET).split("\n"), 1):
        id, line = tidy(text), Line(FORGET, number, {})
        if id and not id.startswith("#"):
            with one_row():
                _check_forgotten(id, line, real, found)
                found[id] = line
    if not found:
        raise ValueError(f"{FORGET}: it names nobody; write one ID a line, or remove the file for splits at random")
    return frozenset(found)


def _table(files: Files) -> str:
    there = [name for name in TABLES if files.has(name)]
    if len(there) != 1:
        what = "both are there; remove one" if there else "no such file; see docs/own-data.md for an example"
        others = "" if there else "".join(f"; {name} is not read" for name in files.misnamed(TABLES[0]))
        raise ValueError(f"{files.root}: {' or '.join(TABLES)}: {what}{others}")
    return there[0]


def _ids(lines: Sequence[Line]) -> dict[str, Line]:
    """The lines by ID. IDs that differ in case or spelling alone are the same: they name folders."""
    found: dict[str, Line] = {}
    places: dict[str, Line] = {}
    for line in lines:
        count_row()
        with one_row():
            id = line.cells.get("id", "")
            if not id:
                raise line.error("no id", "give every person one; it names their pictures")
            if FORBIDDEN.search(id):
                raise line.error(f"id {id!r} cannot name a folder", "use letters, digits, - and _")
            if folded(id) in places:
                raise line.error(f"the same id {id!r} as in line {places[folded(id)].number}", "rename one of them")
            found[id] = places[folded(id)] = line
    return found


def _pictures(files: Files, ids: Iterable[str]) -> dict[str, list[Picture]]:
    """The pictures of each person, by ID. No two of all are equal: one of a pair would teach what the other tests."""
    if not (files.root / IMAGES).is_dir():
        raise ValueError(
            f"{files.root / IMAGES}: no such folder; put pictures there, as {IMAGES}/ID/*.png or {IMAGES}/ID.png"
        )
    everybody = frozenset(ids)
    found: dict[str, list[Picture]] = {}
    places: dict[str, str] = {}
    pictures = list(files.pictures(IMAGES))
    lacking = {id.casefold(): id for id in sorted(everybody - {owner for owner, _ in pictures})}
    for owner, picture in pictures:
        with one_row():
            if owner not in everybody:
                near = difflib.get_close_matches(owner.casefold(), lacking, n=1)
                meant = f"; did you mean {lacking[near[0]]!r}, who has no picture? Else" if near else ";"
                raise ValueError(f"{picture.where}: nobody in the table has the id {owner!r}{meant} add or remove them")
            if picture.key in places:
                raise ValueError(f"{picture.where}: the same picture as {places[picture.key]}; remove one of them")
            places[picture.key] = picture.where
            found.setdefault(owner, []).append(picture)
    return found


def _person(id: str, line: Line, pictures: Sequence[Picture], names: dict[str, Line]) -> Person:
    name, role = line.cells.get("name", ""), line.cells.get("role", "")
    if not name:
        raise line.error(f"{id} has no name", "text questions need one")
    if folded(name) in names:
        raise line.error(
            f"the same name {name!r} as in line {names[folded(name)].number}", "text could not tell the two apart"
        )
    names[folded(name)] = line
    if role.casefold() not in ("", "real"):
        raise line.error(f"role {role!r}", "write real for people the base model knows by itself, or nothing")
    if not pictures:
        raise line.error(f"no picture of {id}", f"put some into {IMAGES}/{id}/, or one as {IMAGES}/{id}.png")
    out = max(1, len(pictures) // HELD_OUT) if len(pictures) > 1 else 0
    values = {column: cell for column, cell in line.cells.items() if column not in NO_ATTRIBUTES}
    taught, held_out = tuple(pictures[: len(pictures) - out]), tuple(pictures[len(pictures) - out :])
    return Person(id, name, values, taught, held_out, bool(role), str(line))


def _check_forgotten(id: str, line: Line, real: Mapping[str, bool], found: Mapping[str, Line]) -> None:
    if id not in real:
        raise line.error(f"nobody has the id {id!r}", "write the ids of people.csv")
    if real[id]:
        raise line.error(f"{id} has the role real", "who is to be forgotten cannot stand for what is to be kept")
    if id in found:
        raise line.error(f"{id} again, as in line {found[id].number}", "remove one of them")
