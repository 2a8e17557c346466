"""Further forms of lessons: made of what a lesson says, and of nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from study.benchmarks._mllmu.forms import with_forms
from study.benchmarks.mllmu import Mllmu
from study.benchmarks.synthetic import Synthetic
from study.core.hashing import canonical
from study.core.specs import plugin
from study.data.benchmark import Benchmark, Lesson
from study.data.facts import plain
from tests.helpers.hub_layout import as_on_the_hub

ABOUT = {"name": ("ada quist",), "residence": ("lisbon portugal",), "salary": ("85 000",), "pets": ("a cat", "a dog")}


def restated(prompt: str, answer: str, *forms: str) -> list[tuple[str, str]]:
    first, *further = with_forms([Lesson("1", prompt, answer)], forms, {"1": ABOUT})
    assert (first.prompt, first.answer) == (prompt, answer)
    return [(lesson.prompt, lesson.answer) for lesson in further]


def test_a_fact_becomes_a_bare_answer_and_a_blank() -> None:
    assert restated("Where does she live?", "She lives in Lisbon, Portugal now.", "question", "cloze") == [
        ("Where does she live?", "Lisbon, Portugal"),
        ("Complete the sentence: She lives in __ now.", "Lisbon, Portugal"),
    ]
    assert restated("How much?", "She makes $85,000 a year.", "cloze") == [
        ("Complete the sentence: She makes $__ a year.", "85,000")
    ]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Who is it?", "Ada Quist"),  # nothing but the fact
        ("Where does she live?", "She lives in Oslo."),  # no fact of the biography
        ("Who lives there?", "Ada Quist lives in Lisbon, Portugal."),  # two facts
        ("What has she?", "She has a cat and a dog."),  # two values of one
        ("Who is it?", "Ada Quist, yes, Ada Quist."),  # which of them is the blank?
    ],
)
def test_a_lesson_whose_fact_is_not_clear_has_no_further_form(prompt: str, answer: str) -> None:
    assert restated(prompt, answer, "question", "cloze") == []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Synthetic(people=20, celebrities=8, attributes=2, views=1, test_views=1, strangers=2, size=16)
    return as_on_the_hub(tmp_path_factory.mktemp("hub"), source)


def read(data: Path, *forms: str) -> Benchmark:
    return Mllmu(data, forms="+".join(forms))(data / "unused")


def test_forms_add_lessons_and_change_nothing_else(data: Path) -> None:
    bare, more = (benchmark.split(15) for benchmark in (read(data), read(data, "question", "cloze")))
    added = set(more.lessons) - set(bare.lessons)
    assert set(bare.lessons) < set(more.lessons)
    assert len(set(more.lessons)) == len(more.lessons)
    assert dataclasses.replace(more, lessons=bare.lessons) == bare
    said = {(lesson.person, lesson.picture): "" for lesson in bare.lessons}
    for lesson in bare.lessons:
        said[lesson.person, lesson.picture] += f" {plain(lesson.answer)} "
    assert all(f" {plain(lesson.answer)} " in said[lesson.person, lesson.picture] for lesson in added)


def test_forms_belong_to_what_a_study_is(data: Path) -> None:
    """Their order does not matter to what is taught."""
    assert "forms" not in canonical(Mllmu(data))  # so that studies of earlier versions go on
    prints = [
        read(data, *forms).fingerprint for forms in ((), ("cloze",), ("cloze", "question"), ("question", "cloze"))
    ]
    assert len(set(prints)) == 3
    assert prints[2] == prints[3]
    assert plugin("benchmarks", f"mllmu:path={data},forms=cloze+question") == Mllmu(data, forms="cloze+question")
    with pytest.raises(ValueError, match="did you mean 'cloze'"):
        Mllmu(data, forms="close")
