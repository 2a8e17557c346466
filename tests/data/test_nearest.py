"""Who is near the forget people: by look, by name, and what is not asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from PIL import Image

from study.core.terms import Role
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.image_edits import encoded, transformed
from study.data.names import names_in
from study.data.nearest import nearest
from study.data.picture import Picture

GREYS = {"f1": (10, 200), "f2": (90,), "r1": (14,), "r2": (80,), "r3": (206, 140), "r4": (10,), "real": (90,)}
NAMES = {"f1": "Ada Lund", "f2": "Bo Quist", "r1": "Ada Lundh", "r2": "Eva Maar", "r3": "Bo Quest", "real": "Bo Quist"}


def plain(level: int, size: int = 40) -> Picture:
    return encoded(Image.new("RGB", (size, size), (level, level, level)), f"{level}")


def split(greys: Mapping[str, tuple[int, ...]] = GREYS, names: Mapping[str, str] = NAMES) -> Split:
    """People whose pictures are grey, one lesson each, and who are called something."""
    lessons = [Lesson(person, "?", "x", plain(grey)) for person, there in greys.items() for grey in there]
    lessons += [Lesson(person, "Who?", name, attribute="name") for person, name in names.items()]
    roles: dict[str, Role] = {"f": "forget", "r": "retain"}
    asked = [
        Question(person, person, "real" if person == "real" else roles[person[0]], "text", "cloze", "select", "?", "x")
        for person in greys
    ]
    return Split(10, frozenset({"f1", "f2"}), tuple(lessons), tuple(asked))


def test_the_nearest_by_any_two_pictures_and_by_the_name() -> None:
    """f1 is as dark as r4 in one picture, f2 nearest to r2; nobody but retained people counts."""
    assert nearest(split()) == {"look": ["r2", "r4"], "name": ["r1", "r3"]}


def test_pictures_that_are_only_asked_about_count() -> None:
    there = split()
    shown = replace(there.questions[2], picture=plain(90))
    assert nearest(replace(there, questions=(*there.questions, shown)))["look"] == ["r1", "r4"]


def test_the_first_by_id_where_several_are_as_near() -> None:
    there = split({"f1": (50,), "f2": (50,), "r2": (60,), "r1": (40,)}, {})
    assert nearest(there) == {"look": ["r1"], "name": []}


def test_size_does_not_matter_and_a_person_is_nearest_to_an_edited_self(benchmark: Benchmark) -> None:
    """Every forget person of a real split, whose slightly darker picture somebody else is given."""
    whole = benchmark.split(15)
    shown = {x.person: x.picture for x in whole.lessons if x.picture}
    kept = sorted({q.person for q in whole.questions if q.role == "retain"})
    twins = dict(zip(sorted(whole.forget_people), kept, strict=False))
    extra = [
        Lesson(twin, "?", "x", encoded(transformed(shown[person].open(), "darken", 0.05, 0).resize((96, 96)), "twin"))
        for person, twin in twins.items()
    ]
    assert nearest(replace(whole, lessons=(*whole.lessons, *extra)))["look"] == sorted(twins.values())


def test_a_name_is_the_shortest_answer_that_is_labelled_so() -> None:
    lessons = [
        Lesson("a", "Who?", "This is Ada Lund.", attribute="name"), Lesson("a", "Who?", "Ada Lund.", attribute="name"),
        Lesson("a", "Job?", "Vet"), Lesson("b", "Job?", "Vet"),
    ]  # fmt: skip
    assert names_in(lessons) == {"a": "Ada Lund"}
