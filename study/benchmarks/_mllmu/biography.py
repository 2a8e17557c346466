"""What kind of fact a question is about, told from the person's biography: MLLMU-Bench itself labels nothing.

A question is about an attribute if its answer states the value that the biography gives for it, unless the question
itself states that value or the answer could be about another attribute as well. What is not told so remains
unlabelled: a wrong label would have the wrong fact forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from study.data.facts import plain

MOST_CHARACTERS = 100_000  # of a cell: far more than a biography takes
MOST_WORDS = 8  # a longer value, such as a description, retells other attributes

Biography = Mapping[str, tuple[str, ...]]
"""The values of each attribute as plain words."""


def biography(cell: object) -> Biography:
    """The attributes of a biography cell: the JSON text of an object with untidy keys and values of mixed types.

    Names are in lower case, with underscores for spaces. Values in lists and objects count each for itself. Empty if
    the cell holds no such object: a biography is not needed to teach or to ask.
    """
    try:
        content = json.loads(cell) if isinstance(cell, str) and len(cell) <= MOST_CHARACTERS else None
    except (ValueError, RecursionError):
        content = None
    found: dict[str, tuple[str, ...]] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        name = "_".join(plain(key).split())
        values = tuple(words for words in map(plain, _texts(value)) if 0 < len(words.split()) <= MOST_WORDS)
        if name and values:
            found[name] = found.get(name, ()) + values
    return found


class Stated(NamedTuple):
    """An attribute, and its values that an answer states; nothing if no attribute is stated, or several may be."""

    attribute: str = ""
    values: tuple[str, ...] = ()


def told(prompt: str, answer: str, about: Biography) -> Stated:
    """The one attribute whose value `answer` states and `prompt` does not.

    A value that contains the answer makes it ambiguous: "Lisbon" may be short for a birthplace "Lisbon, Portugal".
    """
    if not about:
        return Stated()
    given, said = f" {plain(prompt)} ", f" {plain(answer)} "
    asked = {
        name: [value for value in (f" {words} " for words in values) if value not in given]
        for name, values in about.items()
    }
    stated = {name: tuple(value.strip() for value in values if value in said) for name, values in asked.items()}
    found = [Stated(name, values) for name, values in stated.items() if values]
    touched = [name for name, values in asked.items() if any(value in said or said in value for value in values)]
    return found[0] if found and len(touched) == 1 else Stated()


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
