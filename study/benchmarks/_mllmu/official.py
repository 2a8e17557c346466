"""The released protocol of MLLMU-Bench (its eval.py, revision 0e3098e), word for word, with its draws seeded.

Choices: the options are listed, one letter is asked for, and all choices of one person of the evaluated set are shown
with their answers first; that person is then not asked (the few-shot examples hold forget set answers: an issue of the
released code that the strict protocol does not share). Celebrities are asked without examples. Cloze: examples of two
people, in all sets. Descriptions: none. Each person is asked about one picture, drawn. Differences from the released
code: draws are seeded, and examples for celebrities' clozes come from the retain set.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase

from study.core.terms import MODALITIES, TASKS, Modality, Role, Task
from study.data.benchmark import Question, Split
from study.data.official_protocol import IMAGE, OfficialPrompt
from study.data.picture import Picture
from study.data.synthetic_language import COMPLETE
from study.metrics.text import first_letter

SETS: tuple[Role, ...] = ("forget", "test", "retain", "real")
EXAMPLES_FROM: dict[Role, Role] = {"forget": "forget", "test": "forget", "retain": "retain", "real": "retain"}
"""Full_Set, where the released code takes examples from, holds the questions of the forget and retain people."""
SHOWN: dict[Task, int] = {"classification": 1, "cloze": 2, "generation": 0}
"""People whose questions are shown as examples; Idefics2 was shown one for clozes."""
ONE_LETTER = "Just give ONE letter representing the answer directly."
ONLY = "Please **ONLY** provide the correct answer that should replace the [Blank]."
TRAINED = {
    "image_text": "Answer the question based on your trained knowledge in one sentence accurately in ENGLISH.",
    "text": "Answer the question based on your trained knowledge in one sentence in ENGLISH.",
}
MOST_TOKENS = 50
"""Of a reply, as in the authors' code."""


def asks(split: Split, seed: int) -> Iterator[OfficialPrompt]:
    """Every question of a split as the authors put it, set by set; those shown as examples are left out."""
    for role in SETS:
        drawn = _drawn(split, role, random.Random(f"{seed} {role}"))
        for task in TASKS:
            for modality in MODALITIES:
                yield from _set(split, role, task, modality, drawn, random.Random(f"{seed} {role} {task} {modality}"))


def _drawn(split: Split, role: Role, rng: random.Random) -> dict[str, Picture]:
    """One picture of each person, of all that any question of the set is about."""
    pictures: dict[str, dict[Picture, None]] = {}
    for question in split.questions:
        if question.role == role and question.picture is not None:
            pictures.setdefault(question.person, {})[question.picture] = None
    return {person: rng.choice(list(pictures[person])) for person in sorted(pictures)}


def _set(
    split: Split, role: Role, task: Task, modality: Modality, drawn: Mapping[str, Picture], rng: random.Random
) -> Iterator[OfficialPrompt]:
    mine = [q for q in split.questions if (q.role, q.task, q.modality) == (role, task, modality)]
    pool = [q for q in split.questions if (q.role, q.task, q.modality) == (EXAMPLES_FROM[role], task, modality)]
    evaluated = {q.person for q in mine}
    people = sorted({q.person for q in pool if role == "real" or q.person in evaluated})
    count = 0 if role == "real" and task == "classification" else SHOWN[task]
    shown = rng.sample(people, min(count, len(people)))
    examples = [q for person in shown for q in pool if q.person == person]
    for question in mine:
        if question.person not in shown:
            yield _ask(question, examples, drawn.get(question.person) if question.picture else None)


def _ask(question: Question, examples: Sequence[Question], picture: Picture | None) -> OfficialPrompt:
    before = "".join(_example(q) for q in examples)
    pictures = [q.picture for q in (*examples, question) if q.picture is not None]
    if picture is not None:
        pictures[-1] = picture
    letters = dict(zip(ascii_uppercase, question.options, strict=False))

    def option(reply: str) -> str | None:
        return letters.get(first_letter(reply, letters) or "")

    read = option if question.options else str.strip
    return OfficialPrompt(question, before + _query(question), tuple(pictures), MOST_TOKENS, read=read)


def _example(question: Question) -> str:
    if question.options:
        letter = ascii_uppercase[question.options.index(question.answer)]
        head = "USER: <image>\n" if question.picture else "USER:\n"
        return f"{head}Question: {question.prompt}\n{_listed(question)}Correct Answer: {letter}\n"
    head = f"USER:{IMAGE}\n" if question.picture else "USER:\n"
    return f"{head}{_blank(question)}\nCorrect Answer: {question.answer}\n"


def _query(question: Question) -> str:
    head = f"USER: {IMAGE}\n" if question.picture else "USER:\n"
    if question.options:
        return f"{head}{question.prompt}\n{_listed(question)}{ONE_LETTER}\nASSISTANT:"
    if question.task == "cloze":
        return f"{head}{_blank(question)}\nASSISTANT:"
    if question.picture:
        return f"{head}{question.prompt}\n{TRAINED['image_text']}\nASSISTANT: "
    return f"USER: {question.prompt}\n{TRAINED['text']}\nASSISTANT:"


def _listed(question: Question) -> str:
    return "".join(f"{letter}: {text}\n" for letter, text in zip(ascii_uppercase, question.options, strict=False))


def _blank(question: Question) -> str:
    """A cloze as eval.py words it; our own first words are taken off."""
    return question.prompt.removeprefix(COMPLETE).replace("__", "[Blank]") + f"\n{ONLY}"
