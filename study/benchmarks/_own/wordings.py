"""How somebody's own facts are asked and told: the wordings in questions.csv, or plain ones made of column names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from study.benchmarks._shared.defects import one_row
from study.benchmarks._shared.text_files import Files, Line, label
from study.data.synthetic_language import SOMEBODY

QUESTIONS = "questions.csv"
NAME = "name"
BLANK = "__"
IN_A_SENTENCE = " Answer in a full sentence."
COLUMNS = ("attribute", "question", "statement", "cloze")

_GAP = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Wording:
    """The wordings of one attribute, with the gaps {name} and {value}; a cloze has the blank `__` for the value.

    The first, third ... question is taught and asked, the second, fourth ... asked as rewritten test question.
    """

    questions: tuple[str, ...]
    statements: tuple[str, ...]
    clozes: tuple[str, ...]

    def asked(self, *, rewritten: bool) -> tuple[str, ...]:
        """The questions that are taught, or those that are not; the taught ones again where there is only one."""
        return (self.questions[1::2] if rewritten else ()) or self.questions[::2]

    def cloze(self, *, rewritten: bool) -> str:
        """The sentence with a blank that is taught, or the one that is not, if there are two."""
        return self.clozes[-1 if len(self.clozes) > 1 and rewritten else 0]


Wordings = Mapping[str, Wording]

_OF_NAME = Wording(
    ("Who is {name}?", "Which name does {name} have?", "What is the name of {name}?", "Can you say who {name} is?"),
    ("{name} is {value}.", "The name of {name} is {value}."),
    ("{name} is __.", "The name of {name} is __."),
)


def filled(template: str, subject: str, value: str = "") -> str:
    """A wording with its gaps filled, its first letter in upper case where that is the subject's."""
    gaps = {"name": subject, "value": value}
    text = _GAP.sub(lambda gap: gaps[gap[1]], template)
    return text[:1].upper() + text[1:] if template.startswith("{name}") else text


def stated(template: str, value: str) -> str:
    """A sentence that tells a value of "this person".

    It never says the name: `study.data.facts.facts` tells facts apart by what answers contain.
    """
    return filled(template, SOMEBODY, value)


def plain_wording(attribute: str) -> Wording:
    """The wordings of an attribute that are made of its name."""
    if attribute == NAME:
        return _OF_NAME
    what = attribute.replace("_", " ").replace("{", "(").replace("}", ")")
    return Wording(
        (
            f"What is the {what} of {{name}}?",
            f"Which {what} does {{name}} have?",
            f"Tell me the {what} of {{name}}.",
            f"Can you say what the {what} of {{name}} is?",
        ),
        (f"The {what} of {{name}} is {{value}}.", f"{{value}} is the {what} of {{name}}."),
        (f"The {what} of {{name}} is __.", f"{{name}} has as {what} __."),
    )


def read_wordings(files: Files, attributes: Iterable[str]) -> dict[str, Wording]:
    """The wordings of every attribute and of the name. What questions.csv says of an attribute replaces the plain one.

    Raises `ValueError` that names the line of an attribute that is no column, and of a gap that is missing or unknown.
    """
    known = (NAME, *attributes)
    given: dict[str, list[Line]] = {}
    if other := files.misnamed(QUESTIONS):
        raise ValueError(f"{other[0]}: not read; wordings stand in {QUESTIONS}: save it so, or remove it")
    for line in files.table(QUESTIONS) if files.has(QUESTIONS) else []:
        with one_row():
            given.setdefault(_attribute(line, known), []).append(_checked(line))
    return {attribute: _wording(attribute, given.get(attribute, [])) for attribute in known}


def _wording(attribute: str, lines: Sequence[Line]) -> Wording:
    plain = plain_wording(attribute)
    questions, statements, clozes = (
        tuple(line.cells[column] for line in lines if column in line.cells) for column in COLUMNS[1:]
    )
    told = (*statements, *(s for s in reversed(plain.statements) if s not in statements))[:2] if statements else ()
    blanks = tuple(cloze.replace("{value}", BLANK) for cloze in clozes)
    return Wording(questions or plain.questions, told or plain.statements, blanks[:2] or plain.clozes)


def _attribute(line: Line, known: Sequence[str]) -> str:
    attribute = label(line.cells.get("attribute", ""))
    if attribute not in known:
        near = difflib.get_close_matches(attribute, known, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise line.error(f"attribute {attribute!r} is no column of the people", f"{meant}There are {', '.join(known)}")
    return attribute


def _checked(line: Line) -> Line:
    unknown = set(line.cells) - set(COLUMNS)
    if unknown:
        raise line.error(f"column {min(unknown)!r}", f"the columns are {', '.join(COLUMNS)}")
    if not set(line.cells) - {"attribute"}:
        raise line.error("no wording", "fill in question, statement or cloze")
    for column, gaps in (("question", ["name"]), ("statement", ["name", "value"]), ("cloze", ["name", "value"])):
        text = line.cells.get(column)
        if text is not None:
            written = text.replace(BLANK, "{value}") if column == "cloze" else text
            if sorted(_GAP.findall(written)) != gaps or set("{}") & set(_GAP.sub("", written)):
                blank = " (or __)" if column == "cloze" else ""
                wanted = " and ".join(f"{{{gap}}}" for gap in gaps)
                raise line.error(f"{column} {text!r}", f"it needs {wanted}{blank}, each once, and no other gap")
    return line
