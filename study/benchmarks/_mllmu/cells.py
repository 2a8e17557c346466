"""Single cells of the MLLMU-Bench layout, read strictly: whatever is wrong names its file, row and ID.

Column names and value conventions: the data card of MLLMMU/MLLMU-Bench on the Hugging Face hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np

from study.benchmarks._mllmu.biography import Biography, told
from study.benchmarks._shared.rows import Cells, Row, no_picture, picture, short, text
from study.core.terms import Modality, Role, Task
from study.data.benchmark import Lesson, Question
from study.data.picture import Picture
from study.data.synthetic_language import COMPLETE

LETTERS = ("A", "B", "C", "D")
FIFTH = "E"
"""An option that some choices have beside these four; an empty cell in all others."""
CHOICES: dict[str, Modality] = {"Image_Textual_Questions": "image_text", "Pure_Text_Questions": "text"}
TYPES: dict[str, Modality] = {"Image_Textual": "image_text", "Pure_Text": "text"}
TASK_COLUMNS = ("Classification_Task", "Generation_Task", "Mask_Task")

NOTHING: Biography = {}


def row_pictures(row: Row, pictures: dict[str, Picture]) -> list[Picture]:
    """The pictures of an evaluation row: its `images`, or its single `image`."""
    several = _unpacked(row.cells.get("images"))
    if several is None:
        return [picture(row.cells.get("image"), row, pictures)]
    if not isinstance(several, list) or not several:
        raise row.error("the list of images is empty", "embed at least one image or remove the row")
    return [picture(value, row, pictures) for value in several]


def questions(
    row: Row, role: Role, person: str, pictures: list[Picture], about: Biography = NOTHING
) -> Iterator[Question]:
    """All questions of an evaluation row. Pictures are shown in turn, one for two questions.

    Two, because halves take turns as well: each picture is asked about in both. `about` labels what is not labelled.
    """
    for task, modality, items in _lists(row):
        for index, item in enumerate(items):
            what = f"{task} question {index} ({modality})"
            prompt = text(item.get("Question"), row, f"{what}: Question")
            options = _options(item.get("Options"), row, what) if task == "classification" else {}
            answer = _right(item, options, row, what) if options else _truth(item, row, what)
            yield Question(
                id=f"{role}/{row.id}/{modality}/{task}/{index}",
                person=person,
                role=role,
                modality=modality,
                task=task,
                half="report" if index % 2 else "select",
                prompt=COMPLETE + prompt if task == "cloze" else prompt,
                answer=answer,
                options=tuple(options.values()),
                picture=pictures[index // 2 % len(pictures)] if modality == "image_text" else None,
                attribute=_attribute(item, row, what) or told(prompt, answer, about).attribute,
            )


def lessons(row: Row, person: str, pictures: dict[str, Picture], about: Biography = NOTHING) -> Iterator[Lesson]:
    """The lessons of an ft_Data row; without image they are text. `about` labels what is not labelled.

    Raises `ValueError` for an empty one.
    """
    image = row.cells["image"]
    shown = None if no_picture(image) else picture(image, row, pictures)
    try:
        items = json.loads(row.cells["metadata"])
    except (TypeError, ValueError) as error:
        raise row.error(f"metadata is not JSON ({error})") from error
    if not items:
        raise row.error("metadata holds no lesson")
    for index, item in enumerate(_mappings(items, row, "metadata")):
        prompt, answer = (text(item.get(k), row, f"metadata {index}: {k}") for k in ("Question", "Answer"))
        attribute = _attribute(item, row, f"metadata {index}") or told(prompt, answer, about).attribute
        yield Lesson(person, prompt, answer, shown, attribute)


def _lists(row: Row) -> Iterator[tuple[Task, Modality, list[Cells]]]:
    choice = row.cells["Classification_Task"]
    if not isinstance(choice, Mapping):
        raise row.error(f"Classification_Task is {short(choice)}, not a struct of two lists")
    for column, modality in CHOICES.items():
        yield "classification", modality, _mappings(choice.get(column), row, column)
    tasks: tuple[tuple[Task, str], ...] = (("generation", "Generation_Task"), ("cloze", "Mask_Task"))
    for task, column in tasks:
        items = _mappings(row.cells[column], row, column)
        for item in items:
            if str(item.get("Type")) not in TYPES:
                raise row.error(f"{column}: Type is {short(item.get('Type'))}, not one of {', '.join(TYPES)}")
        for name, modality in TYPES.items():
            yield task, modality, [item for item in items if str(item["Type"]) == name]


def _options(value: object, row: Row, what: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise row.error(f"{what}: Options is {short(value)}, not a struct of {', '.join(LETTERS)}")
    letters = LETTERS if value.get(FIFTH) in (None, "") else (*LETTERS, FIFTH)
    options = {letter: text(value.get(letter), row, f"{what}: option {letter}") for letter in letters}
    if len({option.casefold() for option in options.values()}) < len(letters):
        raise row.error(f"{what}: two options are the same among {list(options.values())}")
    return options


def _right(item: Cells, options: Mapping[str, str], row: Row, what: str) -> str:
    letter = str(item.get("Correct_Answer")).strip().upper()
    if letter not in options:
        given = short(item.get("Correct_Answer"))
        raise row.error(f"{what}: Correct_Answer {given} is not among the options {', '.join(options)}")
    return options[letter]


def _truth(item: Cells, row: Row, what: str) -> str:
    return text(item.get("Ground_Truth"), row, f"{what}: Ground_Truth")


def _attribute(item: Cells, row: Row, what: str) -> str:
    """The label of a lesson or question, a key of ours: empty where there is none."""
    value = item.get("Attribute")
    return "" if value in (None, "") else text(value, row, f"{what}: Attribute")


def _mappings(value: object, row: Row, what: str) -> list[Cells]:
    items = [] if value is None else _unpacked(value)
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise row.error(f"{what} is {short(value)}, not a list of structs")
    return items


def _unpacked(value: object) -> object:
    """A list as a list: pandas gives those of parquet files as arrays."""
    return value.tolist() if isinstance(value, np.ndarray) else value
