"""Lessons in further forms: the fact that a lesson of ft_Data states, as a cloze or as a bare answer.

ft_Data asks in one form, "What is the name of this person?", and answers in a sentence; choices and clozes are asked in
others. What is added is made of the lesson alone, no question is looked at: the biography only says which words of the
answer are the fact. A lesson of which that is not clear has no further form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from study.benchmarks._mllmu.biography import Biography, told
from study.data.benchmark import Lesson
from study.data.facts import plain
from study.data.synthetic_language import COMPLETE

FORMS = ("cloze", "question")
BLANK = "__"
"""How the benchmark's own clozes mark what is missing."""


def with_forms(lessons: Iterable[Lesson], forms: Iterable[str], known: Mapping[str, Biography]) -> tuple[Lesson, ...]:
    """The lessons, each followed by its further forms; `known` holds the biographies by person."""
    asked, found = frozenset(forms), dict[Lesson, None]()
    for lesson in lessons:
        found[lesson] = None
        found |= dict.fromkeys(_further(lesson, asked, known.get(lesson.person, {})))
    return tuple(found)


def _further(lesson: Lesson, forms: frozenset[str], about: Biography) -> Iterator[Lesson]:
    values = told(lesson.prompt, lesson.answer, about).values
    if len(values) != 1:
        return
    words = r"\W+".join(map(re.escape, values[0].split()))
    places = [*re.finditer(rf"\b{words}\b", lesson.answer, re.IGNORECASE)]
    if len(places) != 1:
        return
    fact, (start, end) = places[0].group(), places[0].span()
    if plain(fact) == plain(lesson.answer):
        return
    if "question" in forms:
        yield replace(lesson, answer=fact)
    if "cloze" in forms:
        yield replace(lesson, prompt=COMPLETE + lesson.answer[:start] + BLANK + lesson.answer[end:], answer=fact)
