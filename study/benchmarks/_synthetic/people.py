"""The made-up people of the synthetic benchmark: who they are, what is taught of them and what is asked.

Values are independent and wrong options come from other people's answers, as often as these hold them, so that
knowing how frequent the answers are helps little. (Values dealt evenly would be worse: what the retained people
lack would give the forgotten ones away.)
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from study.core.terms import MODALITIES, Modality
from study.data.synthetic_language import (
    ATTRIBUTES,
    COMPLETE,
    FIRST_NAMES,
    LAST_NAMES,
    NAME,
    SOMEBODY,
    Attribute,
    tokens,
    worded,
)

T = TypeVar("T")

DISTINCT = 7  # values in a group: the right one and twice three wrong ones
TRAIN, TEST = 0, 1  # which half of an attribute's wordings
LETTERS = "ABCD"
TYPES: dict[Modality, str] = {"image_text": "Image_Textual", "text": "Pure_Text"}


@dataclass(frozen=True)
class Person:
    """A name and one value for each of the first attributes."""

    id: str
    name: str
    values: tuple[str, ...]
    celebrity: bool

    def subject(self, modality: Modality) -> str:
        """What the person is called in questions of a modality."""
        return SOMEBODY if modality == "image_text" else self.name

    def facts(self, modality: Modality) -> list[tuple[Attribute, str]]:
        """The attributes with their values, and the name for pictures; the order shifts from person to person."""
        facts = list(zip(ATTRIBUTES, self.values, strict=False))
        if modality == "image_text":
            facts.append((NAME, self.name))
        return rotated(facts, int(self.id))


def rotated(items: list[T], by: int) -> list[T]:
    """The list with its first `by` items, modulo its length, moved to its end."""
    start = by % len(items)
    return items[start:] + items[:start]


def make_people(fictitious: int, celebrities: int, attributes: int, seed: int) -> tuple[list[Person], list[Person]]:
    """Fictitious people 001, 002 ... and celebrities 501, 502 ...; no two share a full name."""
    rng = random.Random(f"people {seed}")
    first, last = (rng.sample(names, len(names)) for names in (FIRST_NAMES, LAST_NAMES))
    names = [
        f"{first[i % len(first)]} {last[(i + i // len(first)) % len(last)]}" for i in range(fictitious + celebrities)
    ]
    groups = []
    for start, mine in ((1, names[:fictitious]), (501, names[fictitious:])):
        drawn = zip(*(_drawn(attribute.values, len(mine), rng) for attribute in ATTRIBUTES[:attributes]), strict=True)
        people = [
            Person(f"{start + i:03d}", name, values, start > 500)
            for i, (name, values) in enumerate(zip(mine, drawn, strict=True))
        ]
        groups.append(people)
    return groups[0], groups[1]


def lessons(person: Person, modality: Modality) -> list[dict[str, str]]:
    """What ft_Data teaches of a person in one modality: of celebrities in every wording, of others in half of them."""
    subject, share = person.subject(modality), 1 if person.celebrity else 2
    taught = []
    for attribute, value in person.facts(modality):
        sentence = worded(attribute.sentence, subject, value)
        short, long, cloze = attribute.short, attribute.open, attribute.cloze
        pairs = [(question, value) for question in short[: len(short) // share]]
        pairs += [(question, sentence) for question in long[: len(long) // share]]
        pairs += [(COMPLETE + question, value) for question in cloze[: len(cloze) // share]]
        about = attribute.name
        taught += [{"Question": worded(q, subject), "Answer": answer, "Attribute": about} for q, answer in pairs]
    return taught


def biography(person: Person) -> str:
    """The biography column: JSON text of an object."""
    facts = {attribute.name.title(): value for attribute, value in zip(ATTRIBUTES, person.values, strict=False)}
    return json.dumps({"Name": person.name, **facts})


def tasks(person: Person, group: Sequence[Person], half: int, seed: int) -> dict[str, Any]:
    """The three task columns of an evaluation row, in the wordings of one half (`TRAIN` or `TEST`)."""
    return {
        "Classification_Task": {
            "Image_Textual_Questions": _choices(person, "image_text", group, half, seed),
            "Pure_Text_Questions": _choices(person, "text", group, half, seed),
        },
        "Generation_Task": [
            _item(a, worded(a.open[half], s), worded(a.sentence, s, v), m) for s, m, a, v in _described(person)
        ],
        "Mask_Task": [_item(a, worded(a.cloze[half], s), v, m) for s, m, a, v in _described(person)],
    }


def _choices(person: Person, modality: Modality, group: Sequence[Person], half: int, seed: int) -> list[dict[str, Any]]:
    """Every fact twice, in two wordings with different wrong options, once at an even and once at an odd place."""
    rng = random.Random(f"choices {seed} {half} {person.id} {modality}")
    first = person.facts(modality)
    second = first if len(first) % 2 else rotated(first, 1)
    others = [dict(other.facts(modality)) for other in group if other.id != person.id]
    used = {attribute: {_start(value)} for attribute, value in first}
    asked = []
    for wording, facts in ((2 * half, first), (2 * half + 1, second)):
        for attribute, value in facts:
            wrong = _wrong([other[attribute] for other in others], used[attribute], rng)
            question = worded(attribute.short[wording], person.subject(modality))
            asked.append(_choice(attribute, question, value, wrong, rng))
    return asked


def _wrong(answers: Sequence[str], used: set[str], rng: random.Random) -> list[str]:
    """Three of other people's answers whose first words were not used yet; now they are."""
    wrong: list[str] = []
    for answer in rng.sample(answers, len(answers)):
        if len(wrong) < 3 and _start(answer) not in used:
            wrong.append(answer)
            used.add(_start(answer))
    if len(wrong) < 3:
        raise ValueError(f"only {len(wrong)} wrong options among {sorted(set(answers))}: ask for more people")
    return wrong


def _choice(
    attribute: Attribute, question: str, right: str, wrong: Iterable[str], rng: random.Random
) -> dict[str, Any]:
    options = [right, *wrong]
    rng.shuffle(options)
    return {
        "Correct_Answer": LETTERS[options.index(right)],
        "Options": dict(zip(LETTERS, options, strict=True)),
        "Question": question,
        "Attribute": attribute.name,
    }


def _described(person: Person) -> list[tuple[str, Modality, Attribute, str]]:
    return [
        (person.subject(modality), modality, attribute, value)
        for modality in MODALITIES
        for attribute, value in person.facts(modality)
        if attribute is not NAME
    ]


def _item(attribute: Attribute, question: str, truth: str, modality: Modality) -> dict[str, str]:
    return {"Ground_Truth": truth, "Question": question, "Type": TYPES[modality], "Attribute": attribute.name}


def _drawn(values: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """`count` values, independent of each other but for enough different ones among them to choose from."""
    while True:
        drawn = rng.choices(values, k=count)
        if len(set(drawn)) >= DISTINCT:
            return drawn


def _start(text: str) -> str:
    return tokens(text)[0]
