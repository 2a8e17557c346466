"""The validation half of the questions chooses, the test half reports: the two never ask for the same fact.

Where both halves ask the same fact of the same person, in other words, a method that was chosen for having lost it in
one half has lost it in the other: the scores of people correlate, and what is reported flatters what was chosen. So
the facts about a person are dealt to the two halves in turn, whatever order a dataset has its questions in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from study.core.hashing import content_key
from study.core.terms import HALVES, Half
from study.data.benchmark import Benchmark, Question, Split
from study.data.facts import facts

RULE = "halves by fact"
"""Part of the fingerprint: rows of the halves that a dataset deals by itself are not these."""


def prepared(benchmark: Benchmark, attributes: Sequence[str] = ()) -> Benchmark:
    """A benchmark as a study uses it: halves by fact, and of the forget people only some attributes to be forgotten.

    Raises `ValueError` as `Benchmark.narrowed` does.
    """
    asked = benchmark.narrowed(attributes)
    content = f"{asked.fingerprint}\0{RULE}"
    return replace(
        asked,
        fingerprint=hashlib.sha256(content.encode()).hexdigest()[:12],
        splits={ratio: dealt_by_fact(split) for ratio, split in asked.splits.items()},
    )


def dealt_by_fact(split: Split) -> Split:
    """The same questions, each fact about a person in one half.

    Whoever is not asked for two facts in the choices of each modality stays as the dataset has it: see `undealt`. What
    is to be forgotten and what is spared of a person are dealt each by itself, and both need two.
    """
    halves = {person: _halves(person, asked) for person, asked in _by_person(split).items()}
    return replace(split, questions=tuple(replace(q, half=halves[q.person].get(q.id, q.half)) for q in split.questions))


def undealt(split: Split) -> list[str]:
    """The forget people whose halves share facts, because too few are asked for."""
    there = {person: asked for person, asked in _by_person(split).items() if person in split.forget_people}
    return sorted(person for person, asked in there.items() if _shares(person, asked))


def _by_person(split: Split) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    for question in split.questions:
        found.setdefault(question.person, []).append(question)
    return found


def _halves(person: str, asked: Sequence[Question]) -> dict[str, Half]:
    """The half of each question by its id; empty where there are too few facts."""
    stated = facts_of(asked)
    choices: dict[str, set[str]] = {}
    for question in asked:
        if question.task == "classification":
            choices.setdefault(_place(question), set()).add(stated[question.id])
    if not choices or min(map(len, choices.values())) < len(HALVES):
        return {}
    # Facts that no choice asks for share a place of their own, so these are dealt in turn as well.
    where = {
        fact: tuple(sorted(place for place, there in choices.items() if fact in there)) or ("",)
        for fact in stated.values()
    }
    order = sorted(where, key=lambda fact: (-len(where[fact]), content_key([person, fact])))
    first = int(content_key([person]), 16) % len(HALVES)  # who has more facts in which half changes by person
    turns = HALVES[first:] + HALVES[:first]
    count: dict[tuple[Half, str], int] = {}
    dealt: dict[str, Half] = {}
    for fact in order:  # each to the half that has fewer facts of its places so far
        dealt[fact] = min(turns, key=lambda half: sum(count.get((half, place), 0) for place in where[fact]))
        for place in where[fact]:
            count[dealt[fact], place] = count.get((dealt[fact], place), 0) + 1
    both = all(len({dealt[fact] for fact in there}) == len(HALVES) for there in choices.values())
    return {question: dealt[fact] for question, fact in stated.items()} if both else {}


def _place(question: Question) -> str:
    """Where both halves need a fact: in each modality, of what must go and of what is spared."""
    return f"{question.modality}{' spared' if question.role == 'spared' else ''}"


def _shares(person: str, asked: Sequence[Question]) -> bool:
    stated = facts_of(asked)
    found: dict[str, set[Half]] = {}
    for question in asked:
        found.setdefault(stated[question.id], set()).add(question.half)
    return any(len(halves) > 1 for halves in found.values())


def facts_of(asked: Sequence[Question]) -> Mapping[str, str]:
    """Which fact each question about one person asks for, by the question's id.

    Its label where there is one; else the answer, or the shorter answer that it contains (see `study.data.facts`).
    """
    stated = facts(asked)
    labels: dict[str, str] = {}
    for question in asked:
        if label := question.fact or question.attribute:
            labels.setdefault(stated[question.person, question.answer], label)
    answers = {q.id: stated[q.person, q.answer] for q in asked}
    return {q.id: q.fact or q.attribute or labels.get(answers[q.id], answers[q.id]) for q in asked}
