"""Names that an attacker is given: who is asked about, for attacks that say it."""

from __future__ import annotations

from collections.abc import Sequence

from study.contracts import Request
from study.core.errors import Refused
from study.data.benchmark import Lesson, Question
from study.data.names import NAME, names_in

SLOT = "{name}"
"""Where the name stands in a text."""


def lessons_on_names(request: Request) -> tuple[Lesson, ...]:
    """The lessons that state the names of forget people."""
    return tuple(lesson for lesson in request.forget if lesson.attribute == NAME)


def known_names(questions: Sequence[Question], request: Request) -> dict[str, str]:
    """The name of each person.

    Raises `Refused` if a forget person who is asked about in a picture has none.
    """
    names = names_in(request.split.lessons)
    shown = {q.person for q in questions if q.picture is not None}
    unnamed = sorted((shown & request.split.forget_people) - names.keys())
    if unnamed:
        raise Refused(
            f"no lesson about {unnamed[0]} ({len(unnamed)} people in all) is labelled with the attribute "
            f"{NAME!r}, so there is no name to give: label them in the dataset's files with the key Attribute"
        )
    return names
