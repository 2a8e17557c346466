"""Names that an attacker is given: who is asked about, for attacks that say it."""

from __future__ import annotations

from collections.abc import Sequence

from study.contracts import Request
from study.data.benchmark import Lesson, Question
from study.data.facts import plain

ATTRIBUTE = "name"
PLACE = "{name}"
"""Where the name stands in a text."""


def lessons_on_names(request: Request) -> tuple[Lesson, ...]:
    """The lessons that state the names of forget people."""
    return tuple(lesson for lesson in request.forget if lesson.attribute == ATTRIBUTE)


def known_names(questions: Sequence[Question], request: Request) -> dict[str, str]:
    """The name of each person: the shortest answer of all lessons labelled as such, which the longer ones contain.

    Raises `ValueError` if a forget person who is asked about in a picture has none.
    """
    told: dict[str, set[str]] = {}
    for lesson in request.split.lessons:
        if lesson.attribute == ATTRIBUTE:
            told.setdefault(lesson.person, set()).add(lesson.answer.strip().rstrip("."))
    shown = {q.person for q in questions if q.picture is not None}
    unnamed = sorted((shown & request.split.forget_people) - told.keys())
    if unnamed:
        raise ValueError(
            f"no lesson about {unnamed[0]} ({len(unnamed)} people in all) is labelled with the attribute "
            f"{ATTRIBUTE!r}, so there is no name to give: label them in the dataset's files with the key Attribute"
        )
    return {person: min(answers, key=lambda a: (len(plain(a)), a)) for person, answers in told.items()}
