"""The names of people, as lessons state them."""

from __future__ import annotations

from collections.abc import Iterable

from study.data.benchmark import Lesson
from study.data.facts import plain

NAME = "name"
"""The attribute of lessons that say who somebody is."""


def names_in(lessons: Iterable[Lesson]) -> dict[str, str]:
    """The name of each person: the shortest answer of all lessons labelled as such, which the longer ones contain."""
    told: dict[str, set[str]] = {}
    for lesson in lessons:
        if lesson.attribute == NAME:
            told.setdefault(lesson.person, set()).add(lesson.answer.strip().rstrip("."))
    return {person: min(answers, key=lambda a: (len(plain(a)), a)) for person, answers in told.items()}
