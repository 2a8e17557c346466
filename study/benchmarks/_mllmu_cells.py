"""Single cells of the MLLMU-Bench layout, read strictly: whatever is wrong names its file, row and ID.

Column names and value conventions: the data card of MLLMMU/MLLMU-Bench on the Hugging Face hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from study.benchmarks._mllmu_biography import Biography, told
from study.language import COMPLETE
from study.questions import Lesson, Modality, Picture, Question, Role, Task

LETTERS = ("A", "B", "C", "D")
CHOICES: dict[str, Modality] = {"Image_Textual_Questions": "image_text", "Pure_Text_Questions": "text"}
TYPES: dict[str, Modality] = {"Image_Textual": "image_text", "Pure_Text": "text"}
TASK_COLUMNS = ("Classification_Task", "Generation_Task", "Mask_Task")

NOTHING: Biography = {}

Cells = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One row of a parquet file and where it is from. `number` counts from 0 within the file."""

    file: str
    number: int
    cells: Cells = field(repr=False)
    id: str = ""

    def __str__(self) -> str:
        return f"{self.file}, row {self.number}" + (f", ID {self.id}" if self.id else "")

    def error(self, problem: str, remedy: str = "repair or remove the row") -> ValueError:
        """The exception for something wrong in this row."""
        return ValueError(f"{self}: {problem}; {remedy}")

    def identified(self) -> Row:
        """The row with its ID as text; a number gets the three digits of the dataset. Raises `ValueError` if empty."""
        value = self.cells["ID"]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        name = f"{value:03d}" if isinstance(value, int) else _text(value, self, "ID")
        return replace(self, id=name)


def folder_files(root: Path, folder: str) -> list[Path]:
    """The parquet shards of one folder, in order. Raises `ValueError` if the folder or a shard is missing."""
    files = sorted((root / folder).glob("*.parquet"))
    if not files:
        raise ValueError(
            f"{root / folder}: no such folder or no parquet file in it; download the whole dataset "
            "(huggingface-cli download MLLMMU/MLLMU-Bench --repo-type dataset) and give its folder"
        )
    for file in files:
        shards = re.search(r"-of-(\d+)$", file.stem)
        if shards and int(shards[1]) != len(files):
            raise ValueError(
                f"{root / folder}: {len(files)} files, but {file.name} is one of {int(shards[1])}; "
                "download the missing files or remove the foreign ones"
            )
    return files


def rows(root: Path, folder: str, columns: tuple[str, ...]) -> Iterator[Row]:
    """The rows of a folder with the columns asked for: `image|images` is either, `biography?` may be absent.

    ID is filled if asked.

    Raises `ValueError` for a damaged file, a missing column and a folder without rows.
    """
    empty = True
    for file in folder_files(root, folder):
        name = file.relative_to(root).as_posix()
        try:
            parquet = pq.ParquetFile(file)
            wanted = _columns(name, parquet.schema_arrow.names, columns)
            number = 0
            for batch in parquet.iter_batches(batch_size=32, columns=wanted):
                for cells in batch.to_pylist():
                    row = Row(name, number, cells)
                    yield row.identified() if "ID" in wanted else row
                    number, empty = number + 1, False
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{name}: damaged or not a parquet file ({error}); download it again") from error
    if empty:
        raise ValueError(f"{folder}: the split has no rows; download it again")


def picture(value: object, row: Row, pictures: dict[str, Picture]) -> Picture:
    """The picture of an image cell `{bytes, path}`; equal ones share their bytes through `pictures`.

    Raises `ValueError` if there is none or its header does not open.
    """
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(data, bytes) or not data:
        raise row.error("the image is missing", "embed its bytes in the parquet file or remove the row")
    found = Picture(data, str(row))
    if found.key not in pictures:
        found.check()
        pictures[found.key] = found
    return pictures[found.key]


def row_pictures(row: Row, pictures: dict[str, Picture]) -> list[Picture]:
    """The pictures of an evaluation row: its `images`, or its single `image`."""
    several = row.cells.get("images")
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
            prompt = _text(item.get("Question"), row, f"{what}: Question")
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
                attribute=_attribute(item, row, what) or told(prompt, answer, about),
            )


def lessons(row: Row, person: str, pictures: dict[str, Picture], about: Biography = NOTHING) -> Iterator[Lesson]:
    """The lessons of an ft_Data row; without image they are text. `about` labels what is not labelled.

    Raises `ValueError` for an empty one.
    """
    image = row.cells["image"]
    nothing = image is None or (isinstance(image, Mapping) and all(value is None for value in image.values()))
    shown = None if nothing else picture(image, row, pictures)
    try:
        items = json.loads(row.cells["metadata"])
    except (TypeError, ValueError) as error:
        raise row.error(f"metadata is not JSON ({error})") from error
    if not items:
        raise row.error("metadata holds no lesson")
    for index, item in enumerate(_mappings(items, row, "metadata")):
        prompt, answer = (_text(item.get(k), row, f"metadata {index}: {k}") for k in ("Question", "Answer"))
        attribute = _attribute(item, row, f"metadata {index}") or told(prompt, answer, about)
        yield Lesson(person, prompt, answer, shown, attribute)


def _lists(row: Row) -> Iterator[tuple[Task, Modality, list[Cells]]]:
    choice = row.cells["Classification_Task"]
    if not isinstance(choice, Mapping):
        raise row.error(f"Classification_Task is {_short(choice)}, not a struct of two lists")
    for column, modality in CHOICES.items():
        yield "classification", modality, _mappings(choice.get(column), row, column)
    tasks: tuple[tuple[Task, str], ...] = (("generation", "Generation_Task"), ("cloze", "Mask_Task"))
    for task, column in tasks:
        items = _mappings(row.cells[column], row, column)
        for item in items:
            if str(item.get("Type")) not in TYPES:
                raise row.error(f"{column}: Type is {_short(item.get('Type'))}, not one of {', '.join(TYPES)}")
        for name, modality in TYPES.items():
            yield task, modality, [item for item in items if str(item["Type"]) == name]


def _options(value: object, row: Row, what: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise row.error(f"{what}: Options is {_short(value)}, not a struct of {', '.join(LETTERS)}")
    options = {letter: _text(value.get(letter), row, f"{what}: option {letter}") for letter in LETTERS}
    if len({text.casefold() for text in options.values()}) < len(LETTERS):
        raise row.error(f"{what}: two options are the same among {list(options.values())}")
    return options


def _right(item: Cells, options: Mapping[str, str], row: Row, what: str) -> str:
    letter = str(item.get("Correct_Answer")).strip().upper()
    if letter not in options:
        given = _short(item.get("Correct_Answer"))
        raise row.error(f"{what}: Correct_Answer {given} is not among the options {', '.join(options)}")
    return options[letter]


def _truth(item: Cells, row: Row, what: str) -> str:
    return _text(item.get("Ground_Truth"), row, f"{what}: Ground_Truth")


def _attribute(item: Cells, row: Row, what: str) -> str:
    """The label of a lesson or question, a key of ours: empty where there is none."""
    value = item.get("Attribute")
    return "" if value in (None, "") else _text(value, row, f"{what}: Attribute")


def _text(value: object, row: Row, what: str) -> str:
    number = isinstance(value, int | float) and value == value  # NaN is not equal to itself
    text = str(value).strip() if number or isinstance(value, str) else ""
    if not text:
        raise row.error(f"{what} is empty or no text ({_short(value)})")
    return text


def _mappings(value: object, row: Row, what: str) -> list[Cells]:
    items = [] if value is None else value
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise row.error(f"{what} is {_short(value)}, not a list of structs")
    return items


def _columns(name: str, there: list[str], wanted: tuple[str, ...]) -> list[str]:
    found = []
    for column in wanted:
        either = [c for c in column.removesuffix("?").split("|") if c in there]
        if not either and column.endswith("?"):
            continue
        if not either:
            raise ValueError(
                f"{name}: no column {column!r}, it has {', '.join(there)}; "
                "is this the right folder of MLLMMU/MLLMU-Bench? Download it again"
            )
        found.append(either[0])
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
