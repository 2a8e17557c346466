"""The lessons and questions of CLEAR. The prompts are those of mm/dataset.py in somvy/multimodal_unlearning."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from study.benchmarks._shared.derived import mixed
from study.benchmarks._shared.rows import Row, text, texts
from study.core.terms import Half, Modality, Role
from study.data.benchmark import Lesson, Question
from study.data.facts import folded, plain
from study.data.picture import Picture

CAPTION_PROMPTS = (
    "What can you see in this picture?",
    "Tell me about the content of this image",
    "Can you give a description of the image?",
    "What is depicted in the image?",
    "Explain what you observe in the picture.",
    "Describe the image in detail.",
    "What is the main subject of this image?",
    "Can you describe the scene or objects in the image?",
    "What is happening in this image?",
)
NAME_PROMPT = "The name of the person on the image is "
WRONG = 3  # wrong options of a text choice

Texts = tuple[tuple[str, str, str], ...]
"""Questions and answers about one author, each with its place in the dataset."""


@dataclass(frozen=True)
class Portrait:
    """One row with a picture; `index` counts through its set. The last three are empty where nothing is asked."""

    row: Row = field(repr=False)
    index: int
    person: str
    caption: str
    picture: Picture = field(repr=False)
    paraphrased: str = ""
    wrong: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def number(question: Question) -> int:
    """The place of a question's row in its set."""
    return int(question.id.rpartition("-")[2])


def graded_in(question: Question) -> str:
    """What its set asks for: `name`, `caption`, `real_faces` or `real_world`."""
    kind = question.id.rpartition("/")[2].rpartition("-")[0]
    return question.person.rpartition("-")[0] if kind == "real" else kind


def caption_lesson(portrait: Portrait) -> Lesson:
    """The caption after one of the nine prompts."""
    return Lesson(
        portrait.person, _caption_prompt(portrait.caption), portrait.caption, portrait.picture, where=str(portrait.row)
    )


def about_portrait(portrait: Portrait, role: Role) -> Iterator[Question]:
    """The name, as a choice and freely, and the caption."""
    start, end = f"{role}/{portrait.person}/image_text", f"-{portrait.index}"
    who, shown, half = portrait.person, portrait.picture, _half(portrait.index)
    yield Question(
        id=f"{start}/classification/name{end}", person=who, role=role, modality="image_text", task="classification",
        half=half, prompt=NAME_PROMPT, answer=who, options=mixed(who, portrait.names, f"{who} {portrait.caption}"),
        picture=shown, where=str(portrait.row),
    )  # fmt: skip
    yield Question(
        id=f"{start}/generation/name{end}", person=who, role=role, modality="image_text", task="generation",
        half=half, prompt=NAME_PROMPT, answer=who, perturbed=portrait.names, picture=shown,
        where=str(portrait.row), as_written=(NAME_PROMPT, *_written(portrait.row, "name", "perturbed_names")),
    )  # fmt: skip
    yield Question(
        id=f"{start}/generation/caption{end}", person=who, role=role, modality="image_text", task="generation",
        half=half, prompt=_caption_prompt(portrait.caption), answer=portrait.caption,
        paraphrased=portrait.paraphrased, perturbed=portrait.wrong, picture=shown, where=str(portrait.row),
        as_written=(_caption_prompt(portrait.caption),
                    *_written(portrait.row, "caption", "paraphrased_caption", "perturbed_captions")),
    )  # fmt: skip


def about_texts(person: str, told: Mapping[str, Texts], role: Role) -> Iterator[Question]:
    """Each text question as a choice and freely."""
    for index, (prompt, answer, where) in enumerate(told[person]):
        start, seed = f"{role}/{person}/text", f"{person} {index}"
        yield Question(
            id=f"{start}/classification/text-{index}", person=person, role=role, modality="text",
            task="classification", half=_half(index), prompt=prompt, answer=answer,
            options=mixed(answer, _others(person, index, told), seed), where=where,
        )  # fmt: skip
        yield Question(
            id=f"{start}/generation/text-{index}", person=person, role=role, modality="text", task="generation",
            half=_half(index), prompt=prompt, answer=answer, where=where,
        )  # fmt: skip


def about_world(row: Row, folder: str, index: int, shown: Picture | None) -> Iterator[Question]:
    """A row of a real set, as a choice and freely. Faces are asked for by the name prompt, as in the authors' code.

    Raises `ValueError` if there is no wrong option; whether the options hold the answer too makes no difference.
    """
    answer, given = text(row.cells["answer"], row, "answer"), texts(row.cells["options"], row, "options")
    prompt = text(row.cells["question"], row, "question") if folder == "real_world" else NAME_PROMPT
    wrong = tuple(option for option in given if folded(option) != folded(answer))
    written = _written(row, "options")
    others = (whole for whole, option in zip(written, given, strict=True) if option in wrong)
    asked = str(row.cells["question"]) if folder == "real_world" else NAME_PROMPT
    if not wrong:
        raise row.odd(f"options holds nothing but the answer {answer!r}")
    person = f"{folder}-{index}"
    modality: Modality = "text" if shown is None else "image_text"
    yield Question(
        id=f"real/{person}/{modality}/classification/real-{index}", person=person, role="real", modality=modality,
        task="classification", half=_half(index), prompt=prompt, answer=answer, options=mixed(answer, wrong, person),
        picture=shown, where=str(row),
    )  # fmt: skip
    yield Question(
        id=f"real/{person}/{modality}/generation/real-{index}", person=person, role="real", modality=modality,
        task="generation", half=_half(index), prompt=prompt, answer=answer, perturbed=wrong, picture=shown,
        where=str(row), as_written=(asked, *_written(row, "answer"), *others),
    )  # fmt: skip


def as_written(question: Question) -> Question:
    """A free question with a picture, with its answers as the file has them."""
    _, answer, *others = question.as_written
    paraphrased = others.pop(0) if question.paraphrased else ""
    return replace(question, answer=answer, paraphrased=paraphrased, perturbed=tuple(others))


def unseen(question: Question) -> Question:
    """The same question without its picture."""
    words = question.id.replace("/image_text/", "/text/")
    return replace(question, id=words, modality="text", picture=None)


def _others(person: str, index: int, told: Mapping[str, Texts]) -> list[str]:
    """Three wrong answers: what others are said to be at the same place, or at any, under this person's name."""
    right = plain(told[person][index][1])
    found: dict[str, str] = {}
    for answer in _borrowed(person, index, told):
        if plain(answer) != right:
            found.setdefault(plain(answer), answer)
        if len(found) == WRONG:
            return list(found.values())
    raise ValueError(
        f"full+tofu: {person}, text question {index}: only {len(found)} wrong answers can be taken from other authors, "
        f"{WRONG} are needed; download the whole dataset"
    )


def _borrowed(person: str, index: int, told: Mapping[str, Texts]) -> Iterator[str]:
    others = [name for name in told if name != person]
    random.Random(f"{person} {index}").shuffle(others)
    elsewhere = [i for i in range(len(told[person])) if i != index]
    for other, place in chain(((name, index) for name in others), ((name, i) for name in others for i in elsewhere)):
        if place >= len(told[other]):  # whoever has lost one of the twenty
            continue
        answer = told[other][place][1].replace(other, person)
        if not _mentions(answer, other, person):
            yield answer


def _mentions(answer: str, other: str, person: str) -> bool:
    """Whether an answer still tells that it is about somebody else, by a part of the name."""
    return bool(set(plain(answer).split()) & (set(plain(other).split()) - set(plain(person).split())))


def _written(row: Row, *columns: str) -> tuple[str, ...]:
    """The texts of cells as the file has them, spaces and all."""
    cells = (row.cells[column] for column in columns)
    return tuple(str(item) for cell in cells for item in (cell if isinstance(cell, list) else [cell]))


def _caption_prompt(caption: str) -> str:
    return random.Random(caption).choice(CAPTION_PROMPTS)


def _half(index: int) -> Half:
    return "report" if index % 2 else "select"
