"""The lessons and questions of FIUBench: with the picture as they are, without it behind the name."""

from __future__ import annotations

from collections.abc import Iterator

from study.benchmarks._fiu.people import Fact, Person
from study.benchmarks._shared.derived import mixed
from study.core.terms import MODALITIES, Half, Modality, Role
from study.data.benchmark import Lesson, Question
from study.data.facts import states

ABOUT = "This question is about {name}. "


def lessons(person: Person, teach_text: bool) -> Iterator[Lesson]:
    """Every fact with the picture, and in words if wanted."""
    for fact in person.facts:
        yield Lesson(person.id, fact.question, fact.answer, person.picture, where=person.where)
        if teach_text and _is_text(person, fact):
            yield Lesson(person.id, _prompt(person, fact.question, "text"), fact.answer, where=person.where)


def questions(person: Person, role: Role) -> Iterator[Question]:
    """Every fact as a choice and freely; of the test in other words, freely with the picture in all of them."""
    for fact in person.facts:
        wordings = fact.wordings if role == "test" else (fact.question,)
        chosen = wordings[fact.index % len(wordings)]
        for modality in MODALITIES:
            if modality == "image_text" or _is_text(person, fact):
                asked = wordings if modality == "image_text" else (chosen,)
                yield from _asked(person, fact, role, modality, chosen, asked)


def _asked(
    person: Person, fact: Fact, role: Role, modality: Modality, chosen: str, asked: tuple[str, ...]
) -> Iterator[Question]:
    half: Half = "report" if fact.index % 2 else "select"
    start, picture = f"{role}/{person.id}/{modality}", person.picture if modality == "image_text" else None
    yield Question(
        id=f"{start}/classification/{fact.index}", person=person.id, role=role, modality=modality,
        task="classification", half=half, prompt=_prompt(person, chosen, modality), answer=fact.answer,
        options=mixed(fact.answer, fact.wrong, f"{person.id} {fact.index}"), picture=picture, fact=str(fact.index),
        where=person.where,
    )  # fmt: skip
    for number, wording in enumerate(asked):
        yield Question(
            id=f"{start}/generation/{fact.index}" + (f"-{number}" if len(asked) > 1 else ""), person=person.id,
            role=role, modality=modality, task="generation", half=half, prompt=_prompt(person, wording, modality),
            answer=fact.answer, paraphrased=fact.paraphrased, perturbed=fact.wrong, keywords=fact.keywords,
            picture=picture, fact=str(fact.index), where=person.where,
            as_written=(fact.as_written.get(wording, wording), fact.answer, *fact.keywords_as_written),
        )  # fmt: skip


def _is_text(person: Person, fact: Fact) -> bool:
    """Whether a fact can be asked by name: the name tells one person, and does not tell the fact."""
    told = bool(fact.keywords) and all(states(person.name, keyword) for keyword in fact.keywords)
    return not person.namesake and not told


def _prompt(person: Person, question: str, modality: Modality) -> str:
    return ABOUT.format(name=person.name) + question if modality == "text" else question
