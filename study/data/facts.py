"""The facts that answers state, and those that an attacker is given, so that others are held out (arXiv 2410.08827)."""

from __future__ import annotations

import math
import random
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from study.data.benchmark import Lesson, Question, Split
from study.data.segmentation import UNSPACED, segmented

SIGNS = (*UNSPACED, "HANGUL")


def sample_facts(
    lessons: Sequence[Lesson], *, people: float = 1.0, share: float = 1.0, seed: int, most: int | None = None
) -> tuple[Lesson, ...]:
    """All lessons that state a fraction of the facts about a fraction of the people, at least one fact about one.

    `most` caps the facts of each person. The draw depends on lessons and seed alone: all models face the same attacker.
    """
    draw = random.Random(seed)
    everybody = sorted({lesson.person for lesson in lessons})
    draw.shuffle(everybody)
    stated = labelled_facts(lessons)
    known: set[tuple[str, str]] = set()
    for person in sorted(everybody[: math.ceil(people * len(everybody))]):
        there = sorted({fact for (who, _), fact in stated.items() if who == person})
        draw.shuffle(there)
        known |= {(person, fact) for fact in there[: math.ceil(share * len(there))][:most]}
    return tuple(x for x in lessons if (x.person, stated[x.person, x.answer]) in known)


def facts(lessons: Iterable[Lesson | Question]) -> dict[tuple[str, str], str]:
    """Which fact each `(person, answer)` states: the shortest answer of that person that it contains.

    Datasets in the MLLMU-Bench layout do not label facts, but "Lisbon" and "This person lives in Lisbon." state the
    same fact: the second contains the first. An attacker who is given either of them is given the fact.
    """
    by_person: dict[str, set[str]] = {}
    for lesson in lessons:
        by_person.setdefault(lesson.person, set()).add(lesson.answer)
    stated: dict[tuple[str, str], str] = {}
    for person, answers in by_person.items():
        shortest: list[str] = []
        for answer in sorted(answers, key=lambda a: (len(plain(a)), a)):
            inside = next((fact for fact in shortest if states(answer, fact)), None)
            if inside is None:
                shortest.append(answer)
            stated[person, answer] = inside or answer
    return stated


def labelled_facts(lessons: Sequence[Lesson]) -> dict[tuple[str, str], str]:
    """The same for an attacker: who is given one fact about an attribute is given all that lessons state about it.

    Labels say in any language what belongs together ("Bread is what she bakes" and "baker"); unlabelled facts stay.
    """
    stated = facts(lessons)
    merged: dict[tuple[str, str], str] = {}

    def found(person: str, fact: str) -> str:
        while (person, fact) in merged:
            fact = merged[person, fact]
        return fact

    first: dict[tuple[str, str], str] = {}
    for lesson in lessons:
        fact = found(lesson.person, stated[lesson.person, lesson.answer])
        if lesson.attribute:
            other = found(lesson.person, first.setdefault((lesson.person, lesson.attribute), fact))
            if other != fact:
                merged[lesson.person, fact] = other
    return {(person, answer): found(person, fact) for (person, answer), fact in stated.items()}


def asked_facts(split: Split, questions: Sequence[Question]) -> dict[str, str]:
    """The fact that each question asks for, by question id: what a reply must state, whatever else it says.

    Of a description that is the shortest answer to a lesson or question about the person that the description
    contains. Where no lesson or question has a short form, only a reply with the whole answer states it.
    """
    people = {q.person for q in questions}
    there: list[Lesson | Question] = [*split.lessons, *split.questions, *questions]
    stated = facts(x for x in there if x.person in people)
    return {q.id: stated[q.person, q.answer] for q in questions}


def states(text: str, fact: str) -> bool:
    """Whether `text` contains `fact` as whole words, ignoring case and punctuation; a fact of signs alone as it is."""
    if words := plain(fact):
        return f" {words} " in f" {plain(text)} "
    return bool(folded(fact)) and folded(fact) in folded(text)


@lru_cache(maxsize=1 << 16)  # the same answers stand in every split, and each is compared with all others of a person
def plain(text: str) -> str:
    """The words of a text in lower case, without punctuation, one space apart.

    Spellings of the same characters (NFKC) make no difference. Where a script puts no space between words, or puts
    particles to them as Korean does, each character is a word: what is told in a sentence is then found in it.
    """
    if text.isascii():
        return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())
    return " ".join(segmented(folded(text), SIGNS))


def folded(text: str) -> str:
    """A text whose case, spelling (NFKC), invisible characters and kinds of spaces make no difference any more."""
    whole = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join("".join(c for c in whole if unicodedata.category(c) != "Cf").split())
