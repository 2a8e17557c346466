"""Single cells of the MLLMU-Bench layout, read strictly: whatever is wrong names its file, row and ID.

Column names and value conventions: the data card of MLLMMU/MLLMU-Bench on the Hugging Face hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np

from study.benchmarks._mllmu.biography import Biography, told
from study.benchmarks._shared.defects import one_row
from study.benchmarks._shared.rows import LETTERS, Cells, Row, needed_picture, no_picture, options, picture, short, text
from study.core.terms import Modality, Role, Task
from study.data.benchmark import Lesson, Question
from study.data.picture import Picture
from study.data.synthetic_language import COMPLETE

FIFTH = "E"
"""An option that some choices have beside these four; an empty cell in all others."""
CHOICES: dict[str, Modality] = {"Image_Textual_Questions": "image_text", "Pure_Text_Questions": "text"}
TYPES: dict[str, Modality] = {"Image_Textual": "image_text", "Pure_Text": "text"}
TASK_COLUMNS = ("Classification_Task", "Generation_Task", "Mask_Task")

NOTHING: Biography = {}
MOST_METADATA = 1_000_000
"""Characters of a cell that is parsed as JSON: far more than the lessons about a person take."""


def row_pictures(row: Row, pictures: dict[str, Picture]) -> list[Picture]:
    """The pictures of an evaluation row: its `images`, or its single `image`.

    Of several, those that are none are skipped; a row without any is an error: half of its questions ask about one.
    """
    several = _unpacked(row.cells.get("images"))
    if several is None:
        several = [row.cells.get("image")]
    if not isinstance(several, list) or not several:
        raise row.error("the list of images is empty", "embed at least one image or remove the row")
    if len(several) == 1:
        return [needed_picture(several[0], row, pictures)]
    found: list[Picture] = []
    for value in several:
        with one_row():
            found.append(picture(value, row, pictures))
    if not found:
        raise row.error("none of its images can be read", "embed at least one image or remove the row")
    return found


def questions(
    row: Row, role: Role, person: str, pictures: list[Picture], about: Biography = NOTHING
) -> Iterator[Question]:
    """All questions of an evaluation row but those that are skipped. Pictures are shown in turn, one for two questions.

    Two, because halves take turns as well: each picture is asked about in both. `about` labels what is not labelled.
    Raises `ValueError` if all questions of a task and modality are skipped: the person would be scored by the others.
    """
    for task, modality, items in _lists(row):
        found: list[Question] = []
        for index, item in enumerate(items):
            with one_row():
                shown = pictures[index // 2 % len(pictures)] if modality == "image_text" else None
                found.append(_question(row, role, person, (task, modality, index), item, shown, about))
        if items and not found:
            raise row.error(f"none of its {task} questions ({modality}) can be read")
        yield from found


def _question(
    row: Row,
    role: Role,
    person: str,
    place: tuple[Task, Modality, int],
    item: Cells,
    shown: Picture | None,
    about: Biography,
) -> Question:
    task, modality, index = place
    what = f"{task} question {index} ({modality})"
    prompt = text(item.get("Question"), row, f"{what}: Question")
    options = _options(item.get("Options"), row, what) if task == "classification" else {}
    answer = _right(item, options, row, what) if options else _truth(item, row, what)
    return Question(
        id=f"{role}/{row.id}/{modality}/{task}/{index}",
        person=person,
        role=role,
        modality=modality,
        task=task,
        half="report" if index % 2 else "select",
        prompt=COMPLETE + prompt if task == "cloze" else prompt,
        answer=answer,
        options=tuple(options.values()),
        picture=shown,
        attribute=_attribute(item, row, what) or told(prompt, answer, about).attribute,
        where=str(row),
    )


def lessons(row: Row, person: str, pictures: dict[str, Picture], about: Biography = NOTHING) -> Iterator[Lesson]:
    """The lessons of an ft_Data row but those that are skipped; without image they are text.

    `about` labels what is not labelled. Raises `ValueError` for a row without lessons.
    """
    image = row.cells["image"]
    shown = None if no_picture(image) else picture(image, row, pictures)
    written = row.cells["metadata"]
    if isinstance(written, str) and len(written) > MOST_METADATA:
        raise row.error(f"metadata has {len(written):,} characters", f"at most {MOST_METADATA:,} are read")
    try:
        items = json.loads(written)
    except (TypeError, ValueError, RecursionError) as error:
        raise row.odd(f"metadata is not JSON ({error})") from error
    if not items:
        raise row.odd("metadata holds no lesson")
    where = str(row)
    for index, item in enumerate(_mappings(items, row, "metadata")):
        with one_row():
            prompt, answer = (text(item.get(k), row, f"metadata {index}: {k}") for k in ("Question", "Answer"))
            attribute = _attribute(item, row, f"metadata {index}") or told(prompt, answer, about).attribute
            yield Lesson(person, prompt, answer, shown, attribute, where)


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
            with one_row():
                if str(item.get("Type")) not in TYPES:
                    raise row.odd(f"{column}: Type is {short(item.get('Type'))}, not one of {', '.join(TYPES)}")
        if items and not any(str(item.get("Type")) in TYPES for item in items):
            raise row.error(f"{column}: no question has a Type that is one of {', '.join(TYPES)}")
        for name, modality in TYPES.items():
            yield task, modality, [item for item in items if str(item.get("Type")) == name]


def _options(value: object, row: Row, what: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise row.error(f"{what}: Options is {short(value)}, not a struct of {', '.join(LETTERS)}")
    letters = LETTERS if value.get(FIFTH) in (None, "") else (*LETTERS, FIFTH)
    return options(value, letters, row, what)


def _right(item: Cells, options: Mapping[str, str], row: Row, what: str) -> str:
    letter = str(item.get("Correct_Answer")).strip().upper()
    if letter not in options:
        given = short(item.get("Correct_Answer"))
        raise row.odd(f"{what}: Correct_Answer {given} is not among the options {', '.join(options)}")
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
