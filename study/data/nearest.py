"""The retained people nearest to the forget people: what forgetting harms first, if it does not stop where it should.

Unlearning leaves knowledge holes beside what was to go (SPAR, arXiv 2608.01849), and a mean over all retained people
hides them. Near is who looks most like a forget person, or is named most like one: the questions about them are those
about the forget person with the picture, or the name, exchanged. No model is asked.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeVar

import numpy as np
from PIL import Image

from study.data.benchmark import Split
from study.data.facts import plain
from study.data.names import names_in
from study.data.picture import Picture

T = TypeVar("T")
Likeness = Literal["look", "name"]

SIDE = 16
"""Of a thumbnail, in pixels: a face is told by its colours and proportions, and a small shift changes little."""


def nearest(split: Split) -> dict[Likeness, list[str]]:
    """The nearest retained people, sorted: for each forget person who looks and who is named most like them.

    Looks: the least mean absolute difference of thumbnails of any two pictures. Names: the largest ratio of
    `difflib.SequenceMatcher`, of people whose name is labelled. The first by id where several are as near.
    """
    retained = {q.person for q in split.questions if q.role == "retain"}
    names = {person: plain(name) for person, name in names_in(split.lessons).items()}
    looks = {person: np.stack(list(map(_thumbnail, shown))) for person, shown in _pictures(split).items()}
    return {
        "look": _nearest(looks, split.forget_people, retained, _look_apart),
        "name": _nearest(names, split.forget_people, retained, _named_apart),
    }


def _nearest(
    known: Mapping[str, T], forgotten: Iterable[str], retained: Iterable[str], apart: Callable[[T, T], float]
) -> list[str]:
    there = sorted(person for person in retained if person in known)
    mine = [known[person] for person in forgotten if person in known]
    return sorted({min(there, key=lambda other: apart(one, known[other])) for one in mine}) if there else []


def _look_apart(one: np.ndarray, other: np.ndarray) -> float:
    return min(float(np.abs(other - picture).mean((1, 2, 3)).min()) for picture in one)


def _named_apart(one: str, other: str) -> float:
    return -difflib.SequenceMatcher(None, one, other).ratio()


def _pictures(split: Split) -> dict[str, list[Picture]]:
    """The pictures of each person that are taught or asked about, each once."""
    shown: dict[str, dict[Picture, None]] = {}
    taught = [(lesson.person, lesson.picture) for lesson in split.lessons]
    for person, picture in (*taught, *((question.person, question.picture) for question in split.questions)):
        if picture is not None:
            shown.setdefault(person, {})[picture] = None
    return {person: list(pictures) for person, pictures in shown.items()}


def _thumbnail(picture: Picture) -> np.ndarray:
    return np.asarray(picture.open().resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
