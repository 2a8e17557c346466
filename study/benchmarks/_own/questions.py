"""What is taught and asked about the people of somebody's own dataset.

Wrong options are other people's values, as often as these hold them, so that knowing how frequent values are helps
little. Everything is drawn by content: the order of lines and files changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from study.benchmarks._own.people import Person
from study.benchmarks._own.wordings import IN_A_SENTENCE, NAME, Wording, Wordings, filled, stated
from study.core.terms import HALVES, MODALITIES, Modality, Role
from study.data.benchmark import Lesson, Question
from study.data.facts import folded, states
from study.data.picture import Picture
from study.data.synthetic_language import COMPLETE, SOMEBODY

WRONG = 3
DRAWS = 64  # values looked at, each as likely as it is frequent, before the rare ones are tried


@dataclass(frozen=True)
class Pool:
    """The values of one attribute, one for each person who has one."""

    values: tuple[str, ...] = field(repr=False)

    @cached_property
    def distinct(self) -> tuple[str, ...]:
        """Each value once, sorted."""
        return tuple(sorted(set(self.values)))

    def wrong(self, right: str, draw: random.Random, before: Sequence[str] = ()) -> tuple[str, ...]:
        """At most three values, none of which could pass for the right one or for another of them.

        Those in `before` are taken only where there are no others left.
        """
        found: list[str] = []
        for value in self._drawn(draw, before):
            if not any(alike(value, other) for other in (right, *found)):
                found.append(value)
                if len(found) == WRONG:
                    break
        return tuple(found)

    def _drawn(self, draw: random.Random, before: Sequence[str]) -> Iterator[str]:
        yield from (value for value in draw.choices(self.values, k=DRAWS) if value not in before)
        yield from (value for value in draw.sample(self.distinct, len(self.distinct)) if value not in before)
        yield from before


def alike(one: str, other: str) -> bool:
    """Whether two values are spellings of one, or one contains the other ("Lisbon" and "Lisbon, Portugal")."""
    return folded(one) == folded(other) or states(one, other) or states(other, one)


def pools(people: Iterable[Person]) -> dict[str, Pool]:
    """The values of every attribute, and the names."""
    found: dict[str, list[str]] = {}
    for person in people:
        for attribute, value in ((NAME, person.name), *person.values.items()):
            found.setdefault(attribute, []).append(value)
    return {attribute: Pool(tuple(sorted(values))) for attribute, values in found.items()}


def lessons(person: Person, wordings: Wordings) -> Iterator[Lesson]:
    """Every fact in several wordings, about each picture that is taught and in text; the name of pictures only."""
    for picture in (*person.taught, None):
        subject = person.name if picture is None else SOMEBODY
        for attribute, value in _facts(person, "text" if picture is None else "image_text"):
            for prompt, answer in _taught(wordings[attribute], subject, value):
                yield Lesson(person.id, prompt, answer, picture, attribute, person.where)


def questions(person: Person, role: Role, wordings: Wordings, pools: dict[str, Pool]) -> Iterator[Question]:
    """Everything that is asked about a person; of the role `test`, in other words and on pictures that are not taught.

    Each half asks for every fact that has a wrong option, in two wordings and with different wrong options where there
    are as many. Of a fact, a sentence and a cloze are asked in one half; in which shifts from person to person.
    """
    rewritten = role == "test"
    shown = (person.held_out if rewritten else ()) or person.taught
    shift = random.Random(person.id).randrange(2)
    for modality in MODALITIES:
        for place, (attribute, value) in enumerate(_facts(person, modality)):
            fact = _Fact(person, role, modality, attribute, value, wordings[attribute])
            picture = shown[place % len(shown)] if modality == "image_text" else None
            yield from fact.asked(pools[attribute], picture, (place + shift) % 2)


@dataclass(frozen=True)
class _Fact:
    """One fact about a person, as it is asked in one role and modality."""

    person: Person
    role: Role
    modality: Modality
    attribute: str
    value: str
    wording: Wording

    def asked(self, pool: Pool, picture: Picture | None, turn: int) -> Iterator[Question]:
        """Two choices, a sentence and a cloze; `turn` is the half (0 or 1) of the latter two."""
        draw = random.Random(f"{self.person.id} {self.modality} {self.attribute} {self.rewritten}")
        first = pool.wrong(self.value, draw)
        wrong = (first, pool.wrong(self.value, draw, first))
        for number in range(len(HALVES)) if first else ():
            yield self._choice(number, wrong[number], picture, draw)
        yield self._sentence(turn, first, picture)
        yield self._cloze(turn, first, picture)

    @property
    def rewritten(self) -> bool:
        return self.role == "test"

    @property
    def subject(self) -> str:
        return SOMEBODY if self.modality == "image_text" else self.person.name

    def _prompt(self, number: int) -> str:
        asked = self.wording.asked(rewritten=self.rewritten)
        return filled(asked[number % len(asked)], self.subject)

    def _choice(self, number: int, wrong: Sequence[str], picture: Picture | None, draw: random.Random) -> Question:
        options = [self.value, *wrong]
        draw.shuffle(options)
        return Question(
            id=f"{self._id('classification')}/{number}",
            person=self.person.id,
            role=self.role,
            modality=self.modality,
            task="classification",
            half=HALVES[number],
            prompt=self._prompt(number),
            answer=self.value,
            options=tuple(options),
            picture=picture,
            attribute=self.attribute,
            fact=self.attribute,
            where=self.person.where,
        )

    def _sentence(self, turn: int, wrong: Sequence[str], picture: Picture | None) -> Question:
        first, second = self.wording.statements
        return Question(
            id=self._id("generation"),
            person=self.person.id,
            role=self.role,
            modality=self.modality,
            task="generation",
            half=HALVES[turn],
            prompt=self._prompt(0) + IN_A_SENTENCE,
            answer=stated(first, self.value),
            picture=picture,
            attribute=self.attribute,
            paraphrased=stated(second, self.value),
            perturbed=tuple(stated(first, value) for value in wrong),
            keywords=(self.value,),
            fact=self.attribute,
            where=self.person.where,
        )

    def _cloze(self, turn: int, wrong: Sequence[str], picture: Picture | None) -> Question:
        return Question(
            id=self._id("cloze"),
            person=self.person.id,
            role=self.role,
            modality=self.modality,
            task="cloze",
            half=HALVES[turn],
            prompt=COMPLETE + filled(self.wording.cloze(rewritten=self.rewritten), self.subject),
            answer=self.value,
            picture=picture,
            attribute=self.attribute,
            perturbed=tuple(wrong),
            fact=self.attribute,
            where=self.person.where,
        )

    def _id(self, task: str) -> str:
        return f"{self.role}/{self.person.id}/{self.modality}/{task}/{self.attribute}"


def _facts(person: Person, modality: Modality) -> list[tuple[str, str]]:
    """The attributes with their values, sorted, and the name for pictures."""
    name = [(NAME, person.name)] if modality == "image_text" else []
    return [*name, *sorted(person.values.items())]


def _taught(wording: Wording, subject: str, value: str) -> Iterator[tuple[str, str]]:
    """Prompts with answers: every taught question with the bare value and with a sentence of its own, and a cloze.

    Both statements are taught where two questions are, so that neither is likelier than the other by itself.
    """
    asked = [filled(question, subject) for question in wording.asked(rewritten=False)]
    yield from ((question, value) for question in asked)
    for question, statement in zip(asked, wording.statements, strict=False):
        yield question + IN_A_SENTENCE, stated(statement, value)
    yield COMPLETE + filled(wording.cloze(rewritten=False), subject), value
