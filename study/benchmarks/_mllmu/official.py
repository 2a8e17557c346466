"""The released protocol of MLLMU-Bench (its eval.py, revision 0e3098e), word for word and draw for draw.

It is read from the files as that code reads them: nothing is stripped, skipped or turned upright. Choices: the options
are listed, one letter is asked for, and all choices of one person of the evaluated set are shown with their answers
first; that person is then not asked (the few-shot examples hold forget set answers: an issue of the released code that
the strict protocol does not share). Cloze: examples of two people. Descriptions: none. Examples are the rows of
Full_Set with the drawn IDs, in its order, so clozes of celebrities come without where their IDs are not in it; their
choices always do. Whom a test question shows is drawn anew for every task. Where eval.py ends with an error, at a
picture that does not open beside others or at a question or Ground_Truth without text, that is left out.

With `random.seed(seed)` before its `main`, eval.py draws the same. Where a celebrity is drawn whose ID is in Full_Set,
it hands pictures to a choice that has no place for them; here that choice gets its own alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from study.benchmarks._mllmu.cells import CHOICES, TASK_COLUMNS, TYPES
from study.benchmarks._mllmu.reader import ASKED, DATASET
from study.benchmarks._shared.defects import reading
from study.benchmarks._shared.rows import Cells, Row, pair, rows, stored
from study.core.terms import MODALITIES, Modality, Role, Task
from study.data.benchmark import Question, Split
from study.data.official_protocol import IMAGE, OfficialPrompt
from study.data.picture import Picture
from study.metrics.text import first_letter

ORDER: Mapping[Role, tuple[Task, ...]] = {
    "forget": ("cloze", "classification", "generation"),
    "test": ("classification", "cloze", "generation"),
    "retain": ("cloze", "classification", "generation"),
    "real": ("cloze", "classification", "generation"),
}
"""In which eval.py asks, and so draws."""
SHOWN: Mapping[Task, int] = {"classification": 1, "cloze": 2, "generation": 0}
"""People who are drawn for examples; for Idefics2 one for clozes."""
ONE_LETTER = "Just give ONE letter representing the answer directly."
ONLY = "Please **ONLY** provide the correct answer that should replace the [Blank]."
TRAINED: Mapping[Modality, str] = {
    "image_text": "Answer the question based on your trained knowledge in one sentence accurately in ENGLISH.",
    "text": "Answer the question based on your trained knowledge in one sentence in ENGLISH.",
}
MOST_TOKENS = 50
"""Of a reply, as in the authors' code."""

Items = Mapping[tuple[Task, Modality], Sequence[tuple[int, Cells]]]
"""The questions of each kind, each with its place in its column."""


@dataclass(frozen=True)
class Person:
    """A row as eval.py sees it."""

    id: str
    pictures: tuple[Picture, ...]
    drawn: bool
    """Whether one of its pictures is drawn: the column is `images`, even if that holds but one."""
    items: Items


def asks(root: Path, split: Split, seed: int) -> Iterator[OfficialPrompt]:
    """Every question of a split as the authors put it, set by set; those shown as examples are left out.

    `root` is the folder of the dataset.
    """
    rng, forgotten, retained = random.Random(seed), *pair(split.ratio)
    full, forget = (_people(root, folder) for folder in ("Full_Set", forgotten))
    gone = {person.id for person in forget}
    sets: Mapping[Role, Sequence[Person]] = {
        "forget": forget,
        "test": [person for person in _people(root, "Test_Set") if person.id in gone],
        "retain": _people(root, retained),
        "real": _people(root, "Retain_Set"),
    }
    known = {question.id: question for question in split.questions}
    for role, tasks in ORDER.items():
        drawn_from = list(dict.fromkeys(person.id for person in (forget if role == "test" else sets[role])))
        for task in tasks:
            shown = rng.sample(drawn_from, min(SHOWN[task], len(drawn_from)))
            examples = [person for person in full if person.id in shown]
            asked = [
                replace(person, pictures=(rng.choice(person.pictures),)) if role == "test" and person.drawn else person
                for person in sets[role]
            ]
            yield from _set(role, task, asked, examples, known)


def _people(root: Path, folder: str) -> list[Person]:
    with reading():  # what is odd was said when the dataset was read
        return [
            Person(row.id, tuple(_pictures(row)), "images" in row.cells, _items(row.cells))
            for row in rows(root, folder, ASKED, DATASET)
        ]


def _pictures(row: Row) -> Sequence[Picture]:
    """Those that open; the first if none does, which is an error for whoever shows it."""
    cells = row.cells.get("images") or [row.cells.get("image")]
    found = [Picture(stored(cell), str(row), as_stored=True) for cell in cells]
    return [picture for picture in found if _opens(picture)] or found[:1]


def _opens(picture: Picture) -> bool:
    try:
        picture.check()
    except ValueError:
        return False
    return True


def _items(cells: Cells) -> Items:
    choices, described, blanks = (cells[column] for column in TASK_COLUMNS)
    found: dict[tuple[Task, Modality], Sequence[tuple[int, Cells]]] = {
        ("classification", modality): list(enumerate((choices or {}).get(column) or ()))
        for column, modality in CHOICES.items()
    }
    listed: tuple[tuple[Task, Iterable[Cells]], ...] = (("generation", described or ()), ("cloze", blanks or ()))
    for task, items in listed:
        for name, modality in TYPES.items():
            found[task, modality] = [(place, item) for place, item in enumerate(items) if item["Type"] == name]
    return found


def _set(
    role: Role, task: Task, asked: Sequence[Person], examples: Sequence[Person], known: Mapping[str, Question]
) -> Iterator[OfficialPrompt]:
    shown = {(p.id, m, place) for p in examples for m in MODALITIES for place, _ in p.items[task, m]}
    told = [] if role == "real" and task == "classification" else examples
    for modality in MODALITIES:
        shown_items = [(p, item) for p in told for _, item in p.items[task, modality] if _is_whole(task, item)]
        before = "".join(_example(task, modality, item) for _, item in shown_items)
        pictures = [p.pictures[0] for p, _ in shown_items]
        for person in asked:
            for index, (place, item) in enumerate(person.items[task, modality]):
                if (person.id, modality, place) in shown or not _is_whole(task, item):
                    continue
                id = f"{role}/{person.id}/{modality}/{task}/{index}"
                asks = known.get(id) or Question(id, person.id, role, modality, task, "select", "", "")
                seen = (*pictures, person.pictures[0]) if modality == "image_text" else ()
                yield _prompt(asks, before + _query(task, modality, item), seen, item)


def _is_whole(task: Task, item: Cells) -> bool:
    """Whether it can be asked and marked; of a choice eval.py writes out whatever there is, and marks that."""
    return task == "classification" or None not in (item["Question"], item["Ground_Truth"])


def _prompt(question: Question, text: str, pictures: tuple[Picture, ...], item: Cells) -> OfficialPrompt:
    """The prompt of a question, of which the texts are those of the file."""
    if question.task != "classification":
        asked = replace(question, prompt=item["Question"], answer=item["Ground_Truth"])
        return OfficialPrompt(asked, text, pictures, MOST_TOKENS, read=said)
    options = {letter: str(option) for letter, option in item["Options"].items()}
    right = item["Correct_Answer"]
    asked = replace(
        question, prompt=str(item["Question"]), answer=options.get(right, ""), options=tuple(options.values())
    )
    return OfficialPrompt(
        asked, text, pictures, MOST_TOKENS, read=partial(_letter, letters=tuple(options)), right=right
    )


def _letter(reply: str, letters: Sequence[str]) -> str | None:
    return first_letter(said(reply), letters)


def said(reply: str) -> str:
    """A reply up to where it goes on to speak for both sides."""
    return reply.split("ASSISTANT:")[0].strip()


def _example(task: Task, modality: Modality, item: Cells) -> str:
    shown = modality == "image_text"
    if task == "classification":
        head = f"USER: {IMAGE}\n" if shown else "USER:\n"
        options = "".join(f"{letter}: {item['Options'][letter]}\n" for letter in "ABCD")
        return f"{head}Question: {item['Question']}\n{options}Correct Answer: {item['Correct_Answer']}\n"
    head = f"USER:{IMAGE}\n" if shown else "USER:\n"
    return f"{head}{_blank(item)}\nCorrect Answer: {item['Ground_Truth']}\n"


def _query(task: Task, modality: Modality, item: Cells) -> str:
    shown, asked = modality == "image_text", item["Question"]
    head = f"USER: {IMAGE}\n" if shown else "USER:\n"
    if task == "classification":
        listed = "\n".join(f"{letter}: {text}" for letter, text in item["Options"].items())
        return f"{head}{asked}\n{listed}\n{ONE_LETTER}\nASSISTANT:"
    if task == "cloze":
        return f"{head}{_blank(item)}\nASSISTANT:"
    if shown:
        return f"{head}{asked}\n{TRAINED['image_text']}\nASSISTANT: "
    return f"USER: {asked}\n{TRAINED['text']}\nASSISTANT:"


def _blank(item: Cells) -> str:
    return str(item["Question"]).replace("__", "[Blank]") + f"\n{ONLY}"
