"""Single cells of UMU-Bench, read strictly. They are the text of Python dicts, parsed as literals and never run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping

from study.benchmarks._shared.defects import one_row, skip
from study.benchmarks._shared.rows import LETTERS, Cells, Row, mapping, options, short, text
from study.core.terms import MODALITIES, Modality, Role, Task
from study.data.benchmark import Lesson, Question
from study.data.facts import plain
from study.data.picture import Picture

TASKS: dict[str, Task] = {"Classify": "classification", "Cloze": "cloze", "Generation": "generation"}
SIDES: dict[Modality, tuple[str, ...]] = {
    "image_text": ("muitimodal", "multimodal"),  # the first is how the dataset spells it
    "text": ("unimodal",),
}
ONLY = "Please **ONLY** provide the correct answer without any explanation"
MOST_CHARACTERS = 1_000_000
"""Of a cell that is parsed as a Python dict: far more than the questions about a person take."""


def lessons(row: Row, shown: Picture) -> Iterator[Lesson]:
    """The lessons of a Full_Set row, with the picture and without. Raises `ValueError` for an empty one."""
    for column, picture in (("MM_QA", shown), ("UM_QA", None)):
        cell = literal(row, column)
        asked, answers = (mapping(cell.get(key), row, f"{column}: {key}") for key in ("question", "answer"))
        for key in _paired(asked, answers, row, column):
            with one_row():
                prompt, answer = text(asked[key], row, f"{column} {key}: question"), answers[key]
                yield Lesson(row.id, prompt, text(answer, row, f"{column} {key}: answer"), picture, where=str(row))


def questions(row: Row, role: Role, person: str, shown: Picture) -> Iterator[Question]:
    """All questions of an evaluation row, every fact on both sides and in the same half, or on none.

    Raises `ValueError` if all questions of a task are skipped: the person would be scored by the others.
    """
    for column, task in TASKS.items():
        cell = literal(row, column)
        sides = {modality: _side(cell, names, row, column) for modality, names in SIDES.items()}
        keys = _paired(sides["text"], sides["image_text"], row, column)
        found: list[Question] = []
        for key in keys:
            with one_row():
                index = list(sides["text"]).index(key)
                found += [_question(row, role, person, task, m, (index, key), sides, shown) for m in MODALITIES]
        if not found:
            raise row.error(f"{column}: none of its questions can be read")
        yield from found


def _question(
    row: Row,
    role: Role,
    person: str,
    task: Task,
    modality: Modality,
    place: tuple[int, str],
    sides: Mapping[Modality, Cells],
    shown: Picture,
) -> Question:
    index, key = place
    column = next(name for name, meant in TASKS.items() if meant == task)
    what = f"{column} {key} ({modality})"
    item = mapping(sides[modality][key], row, what)
    other = mapping(sides["text"][key], row, f"{column} {key} (text)")
    options = _options(item.get("options"), row, what) if task == "classification" else {}
    prompt = text(item.get("question"), row, f"{what}: question")
    return Question(
        id=f"{role}/{row.id}/{modality}/{task}/{index}",
        person=person,
        role=role,
        modality=modality,
        task=task,
        half="report" if index % 2 else "select",
        prompt=f"{prompt}\n{ONLY}" if task == "cloze" else prompt,
        answer=_right(item, options, other, row, what) if options else _truth(item, row, what),
        options=tuple(options.values()),
        picture=shown if modality == "image_text" else None,
        fact=str(key),
        where=str(row),
        as_written=_as_written(item, other, task),
    )


def _as_written(item: Cells, other: Cells, task: Task) -> tuple[str, ...]:
    """As eval.py has it: the right option of either side is that with the letter of the side without picture."""
    prompt, answer = str(item["question"]), str(item["answer"])
    if task != "classification":
        return prompt, answer
    options = {letter: str(item["options"][letter]) for letter in LETTERS}
    return prompt, options.get(str(other["answer"]).split(".")[0], ""), *options.values()


def literal(row: Row, column: str) -> Cells:
    """The dict that a cell is the text of. Raises `ValueError` for anything else; nothing in it is ever run."""
    cell = row.cells[column]
    if not isinstance(cell, str) or len(cell) > MOST_CHARACTERS:
        raise row.error(f"{column} is {short(cell)}, not the text of a Python dict")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in somebody's texts
            value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise row.error(f"{column} is no Python literal ({short(cell)})") from error
    return mapping(value, row, column)


def _side(cell: Cells, names: tuple[str, ...], row: Row, column: str) -> Cells:
    name = next((name for name in names if name in cell), names[0])
    return mapping(cell.get(name), row, f"{column}: {name}")


def _paired(one: Cells, other: Cells, row: Row, column: str) -> list[str]:
    """The keys that both have; the others are skipped. Raises `ValueError` if there is none."""
    both = [key for key in one if key in other]
    mine, theirs = (short(sorted(map(str, keys))) for keys in (one, other))
    problem = f"{column}: the keys {mine} and {theirs} do not pair up"
    if not both:
        raise row.error(problem)
    if len(both) < max(len(one), len(other)):
        skip(f"{row}: {problem}")
    return both


def _options(value: object, row: Row, what: str) -> dict[str, str]:
    return options(mapping(value, row, f"{what}: options"), LETTERS, row, what)


def _right(item: Cells, options: dict[str, str], other: Cells, row: Row, what: str) -> str:
    """The option whose letter stands before the full stop of the answer, unless the words after it are another's."""
    letter, words = _answer(item)
    meant = [name for name, option in options.items() if plain(option) == words]
    if letter in options and (not meant or letter in meant):
        return options[letter]
    fits = _answer(other)[0]
    hint = f", while the letter {fits} of the unimodal answer fits" if item is not other and fits in meant else ""
    said = short(item.get("answer"))
    if letter in options:
        raise row.odd(f"{what}: answer {said} has the words of option {meant[0]}{hint}")
    raise row.odd(f"{what}: answer {said} is not among the options {', '.join(options)}{hint}")


def _answer(item: Cells) -> tuple[str, str]:
    """The letter and the words of an answer such as "A. Lisbon"."""
    letter, _, words = str(item.get("answer")).partition(".")
    return letter.strip().upper(), plain(words)


def _truth(item: Cells, row: Row, what: str) -> str:
    return text(item.get("answer"), row, f"{what}: answer")
