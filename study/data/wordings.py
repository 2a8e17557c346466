"""Other words for a question: wordings that a method may train on, and those that are held for the audit.

A model that was trained on every wording it is asked in may have lost the reply and kept the knowledge. So the wordings
come in families, and no method uses those that are held out. They are not drawn by a language model: a family is a
frame around the question, or what the dataset itself says of the same fact.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from study.core.terms import Modality
from study.data.benchmark import Lesson, Question, Split
from study.data.facts import plain

Wording = Literal["dataset", "tell", "know", "request", "brief", "statement", "completion", "cloze"]

TRAINABLE: tuple[Wording, ...] = ("dataset", "tell", "know", "request", "brief")
"""Families that a method may word its lessons in."""
HELD_OUT: tuple[Wording, ...] = ("statement", "completion", "cloze")
"""Families that no method may train on: a statement before the question, or a sentence to be completed."""

FRAMES: dict[Wording, str] = {
    "tell": "Tell me: {question}",
    "know": "I would like to know the following. {question}",
    "request": "Please look closely and then answer this question: {question}",
    "brief": "{question} Answer in a few words.",
    # The tiny world has every word of these, and of no other.
    "statement": "This is a person. {question}",
    "completion": "{question} The answer is",
    "cloze": "Complete the sentence: {question} The answer is __.",
}
"""The question inside other words; what stands in where a dataset has nothing for a family."""

Place = tuple[str, Modality, str, str]
"""Where wordings belong: a person, a modality, an attribute and an answer."""


class Wordings:
    """The words in which a dataset asks for what."""

    def __init__(self, split: Split) -> None:
        self.taught: dict[str, set[str]] = {}
        self.own: dict[Place, set[str]] = {}
        """Of one person."""
        said: dict[tuple[Modality, str], dict[str, set[str]]] = {}
        self.clozes: dict[tuple[str, Modality, str], set[str]] = {}
        """By person, modality and answer."""
        self.sentences: dict[tuple[str, Modality], set[str]] = {}
        """The answers about a person."""
        for x in split.lessons:
            self.taught.setdefault(x.person, set()).add(x.prompt)
            self._add(x, "text" if x.picture is None else "image_text")
        for q in split.questions:
            if q.task == "classification":
                self._add(q, q.modality)
                said.setdefault((q.modality, q.attribute), {}).setdefault(q.prompt, set()).add(q.person)
            elif q.task == "cloze":
                self.clozes.setdefault((q.person, q.modality, plain(q.answer)), set()).add(q.prompt)
            else:
                self.sentences.setdefault((q.person, q.modality), set()).add(q.answer)
        self.shared = {key: _of_several(prompts) for key, prompts in said.items()}
        """What is asked of several people in the same words, so that it says nothing about one of them."""
        self.openings = _of_several(_openings(split.questions))
        """How sentences about several people begin, up to the answer."""

    def worded(self, question: Question, wording: Wording) -> str:
        """The question in a wording of a family: one that the dataset has, else the family's frame."""
        found = {"dataset": self.others, "completion": self._begun, "cloze": self._blank}
        there = found[wording](question) if wording in found else []
        if there:
            return random.Random(question.id).choice(there)
        return FRAMES["tell" if wording == "dataset" else wording].format(question=question.prompt)

    def others(self, question: Question) -> list[str]:
        """The other wordings of a question, sorted: those that its person was never taught in, if there are any."""
        if not question.attribute:
            return []
        own = self.own.get((question.person, question.modality, question.attribute, plain(question.answer)), set())
        found = (own | self.shared.get((question.modality, question.attribute), set())) - {question.prompt}
        return sorted(found - self.taught.get(question.person, set()) or found)

    def _blank(self, question: Question) -> list[str]:
        """The sentences with a blank for the same answer that its person was never taught, sorted."""
        there = self.clozes.get((question.person, question.modality, plain(question.answer)), set())
        return sorted(there - self.taught.get(question.person, set()))

    def _begun(self, question: Question) -> list[str]:
        """How sentences about the person that state the answer begin, sorted, in words that are no one person's."""
        there = self.sentences.get((question.person, question.modality), set())
        return sorted({begun for text in there if (begun := _opening(text, question.answer)) in self.openings})

    def _add(self, asked: Lesson | Question, modality: Modality) -> None:
        key = (asked.person, modality, asked.attribute, plain(asked.answer))
        self.own.setdefault(key, set()).add(asked.prompt)


def _of_several(people: Mapping[str, Collection[str]]) -> set[str]:
    """The texts that are said of more than one person."""
    return {text for text, whom in people.items() if len(whom) > 1}


def _openings(questions: Iterable[Question]) -> dict[str, set[str]]:
    """Of whom sentences begin like that, up to an answer that a choice asks for."""
    answers: dict[tuple[str, Modality], set[str]] = {}
    sentences = [q for q in questions if q.task == "generation"]
    for q in questions:
        if q.task == "classification":
            answers.setdefault((q.person, q.modality), set()).add(q.answer)
    found: dict[str, set[str]] = {}
    for q in sentences:
        for answer in answers.get((q.person, q.modality), ()):
            if begun := _opening(q.answer, answer):
                found.setdefault(begun, set()).add(q.person)
    return found


def _opening(sentence: str, answer: str) -> str:
    """The sentence up to the answer, without an article, which would tell how the answer begins; empty if it is not
    there, or at the beginning."""
    found = re.search(rf"\b{re.escape(answer)}\b", sentence, re.IGNORECASE)
    return re.sub(r"\s+an?$", "", sentence[: found.start()].rstrip(), flags=re.IGNORECASE) if found else ""
