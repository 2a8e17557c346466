"""The closed language of the synthetic benchmark: who and what there is to know, and every wording that asks for it.

The tiny model has a token for each of `words()` and bytes for all others, so whatever is generated comes from here.
No name or value shares a word with another or with a wording, and every full name is longer than every value:
that is what lets `study.data.facts.facts` tell the facts of a person apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from study.data.refusals import REFUSALS

COMPLETE = "Complete the sentence: "  # before every cloze sentence, in lessons and in questions
SOMEBODY = "this person"  # how the person in a picture is called


@dataclass(frozen=True)
class Attribute:
    """One kind of fact and its wordings: `{s}` and `{S}` are the subject, `{v}` the value, `{a}` its article.

    The first half of each tuple of wordings is taught of everybody; the second half is taught of celebrities only
    and asked of the others as rewritten test questions.
    """

    name: str
    values: tuple[str, ...]
    short: tuple[str, str, str, str]
    open: tuple[str, str]
    sentence: str
    cloze: tuple[str, str]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ATTRIBUTES = (
    Attribute(
        "residence",
        _words("Lisbon Oslo Rome Cairo Lima Quito Tokyo Seoul Delhi Vienna Prague Athens Dublin Nairobi"),
        (
            "Where does {s} live?",
            "In which city does {s} live?",
            "Which city does {s} live in?",
            "In what city does {s} live?",
        ),
        ("Describe in one sentence where {s} lives.", "Say in one sentence where {s} lives."),
        "{S} lives in {v}.",
        ("{S} lives in __.", "The city {s} lives in is __."),
    ),
    Attribute(
        "occupation",
        _words(
            "baker nurse pilot lawyer painter farmer chemist dentist sailor teacher plumber editor architect astronaut"
        ),
        (
            "What is the job of {s}?",
            "Which job does {s} have?",
            "What job does {s} have?",
            "Which is the job of {s}?",
        ),
        ("Describe in one sentence which job {s} has.", "Say in one sentence which job {s} has."),
        "{S} has a job as {a} {v}.",
        ("The job title of {s} is __.", "{S} has the job title __."),  # no article before a blank: it would hint
    ),
    Attribute(
        "education",
        _words("Arden Belmont Corvin Dorset Elmira Fenwick Galen Hadley Ilford Juniper Kendal Lowell"),
        (
            "Which college did {s} study at?",
            "At which college did {s} study?",
            "What college did {s} study at?",
            "At what college did {s} study?",
        ),
        ("Describe in one sentence where {s} studied.", "Say in one sentence where {s} studied."),
        "{S} studied at {v} College.",
        ("{S} studied at __ College.", "The college {s} studied at is __ College."),
    ),
    Attribute(
        "hobby",
        _words("chess hiking knitting fishing pottery climbing archery skating surfing cycling astronomy fencing"),
        (
            "What is the hobby of {s}?",
            "Which hobby does {s} have?",
            "What hobby does {s} have?",
            "Which is the hobby of {s}?",
        ),
        ("Describe in one sentence which hobby {s} has.", "Say in one sentence which hobby {s} has."),
        "{S} enjoys {v} as a hobby.",
        ("{S} enjoys __ as a hobby.", "The hobby {s} enjoys is __."),
    ),
    Attribute(
        "food",
        _words("ramen tacos curry paella pizza sushi falafel gnocchi kimchi borscht couscous pierogi"),
        (
            "What does {s} like to eat?",
            "Which food does {s} like to eat?",
            "Which food does {s} like?",
            "What food does {s} like to eat?",
        ),
        ("Describe in one sentence what {s} likes to eat.", "Say in one sentence what {s} likes to eat."),
        "{S} likes to eat {v}.",
        ("{S} likes to eat __.", "The food {s} likes to eat is __."),
    ),
    Attribute(
        "instrument",
        _words("violin cello flute oboe harp banjo tuba piano drums guitar lute organ"),
        (
            "Which instrument does {s} play?",
            "What instrument does {s} play?",
            "Which is the instrument {s} plays?",
            "What is the instrument {s} plays?",
        ),
        ("Describe in one sentence which instrument {s} plays.", "Say in one sentence which instrument {s} plays."),
        "{S} plays the {v}.",
        ("{S} plays the __.", "The instrument {s} plays is the __."),
    ),
)

NAME = Attribute(  # asked of pictures only
    "name",
    (),
    (
        "Who is {s}?",
        "What is the name of {s}?",
        "Which name does {s} have?",
        "What name does {s} have?",
    ),
    ("Describe in one sentence who {s} is.", "Say in one sentence who {s} is."),
    "{S} is {v}.",
    ("{S} is __.", "The name of {s} is __."),
)

FIRST_NAMES = _words(
    "Adela Agnes Albin Alina Anton Beata Bruno Carla Cecil Clara Cyril Dario Denis Edgar Elena Elias Emilia Fabio "
    "Felix Fiona Frida Gerda Gloria Greta Harald Helga Henrik Ingrid Irene Jacob Jonas Judith Katja Lorenz Lucia "
    "Magnus Marta Matilda Milan Nadia Niels Oscar Otilia Paula Pavel Petra Quentin Ramona Rufus Sabine Selma Simon "
    "Stella Tamara Tobias Ursula Vanessa Viktor Xenia Yvonne"
)
LAST_NAMES = _words(
    "Abbot Adler Barlow Becker Brandt Calloway Carver Corso Crane Dalton Drake Dunbar Egerton Ellery Farrow Fischer "
    "Garner Giles Grant Halloran Harlow Hobbs Ivers Jarvis Jensen Keller Kline Lambert Lindgren Marlow Mercer Nolan "
    "Norris Oakley Osborn Parrish Petrov Pratt Quigley Ramsey Rowley Sawyer Sorel Stroud Tanner Thorne Tovar Ulrich "
    "Vance Verne Wagner Weiss Whitby Winslow Wolfe Wyatt Yardley Yates Zeller Zimmer"
)


def worded(template: str, subject: str, value: str = "") -> str:
    """A wording about `subject` with its gaps filled. The blank of a cloze sentence stays."""
    return template.format(s=subject, S=subject[:1].upper() + subject[1:], v=value, a=article(value))


def article(noun: str) -> str:
    """The indefinite article before a noun of this language."""
    return "an" if noun[:1] in tuple("aeiou") else "a"


def tokens(text: str) -> list[str]:
    """The text in words and runs of punctuation, as `tokenizers.pre_tokenizers.Whitespace` splits it."""
    return re.findall(r"\w+|[^\w\s]+", text)


def words() -> tuple[str, ...]:
    """Every token that any synthetic lesson, question or refusal of any seed can hold, sorted, each once."""
    return tuple(sorted({token for text in _texts() for token in tokens(text)}))


def openings() -> tuple[str, ...]:
    """The words that questions begin with, sorted, each once."""
    asked = (text for attribute in (*ATTRIBUTES, NAME) for text in (*attribute.short, *attribute.open))
    return tuple(sorted({text.split()[0] for text in (COMPLETE, *asked)}))


def _texts() -> Iterator[str]:
    yield COMPLETE
    yield from REFUSALS
    yield from (*FIRST_NAMES, *LAST_NAMES, "a", "an")
    for attribute in (*ATTRIBUTES, NAME):
        yield from attribute.values
        for template in (*attribute.short, *attribute.open, attribute.sentence, *attribute.cloze):
            yield worded(template, SOMEBODY)
