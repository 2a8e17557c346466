"""Schedules in epochs: how many steps they are, and that every lesson is drawn as often as they say."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import pytest

from study.core.hashing import content_key
from study.data.benchmark import Lesson
from study.data.picture import Picture
from study.presets import MEMORISED, PUBLISHED, TAUGHT
from study.training.epochs import in_steps
from study.training.lesson_sampler import Lessons
from study.training.schedule import Schedule

SHORT = Schedule(epochs=3.0, pictures=4, lessons_per_picture=2)


def people(count: int, each: int, texts: int = 0) -> list[Lesson]:
    """People of one picture each, with lessons beside it and in text."""
    found = []
    for person in range(count):
        face = Picture(str(person).encode(), "")
        found += [Lesson(f"{person}", f"{i}", "", face) for i in range(each)]
        found += [Lesson(f"{person}", f"{i}", "") for i in range(texts)]
    return found


def drawn(schedule: Schedule, lessons: Sequence[Lesson]) -> tuple[int, int]:
    """How many lessons with and without a picture all steps of a schedule draw."""
    sampler, count = Lessons(lessons, schedule, seed=0), Counter[bool]()
    for _ in range(schedule.steps * schedule.accumulate):
        for group in sampler.draw():
            count[group.picture is not None] += len(group.prompts)
    return count[True], count[False]


@pytest.mark.parametrize(
    ("schedule", "lessons"),
    [
        (SHORT, people(20, each=6)),
        (SHORT, people(20, each=1)),  # fewer lessons of a picture than a step asks for
        (dataclasses.replace(SHORT, accumulate=2), people(20, each=6)),
        (SHORT, people(20, each=6, texts=6)),
        (SHORT, people(20, each=6, texts=30)),  # more text than one group holds
        (SHORT, people(3, each=6)),  # fewer pictures than a step draws
        (dataclasses.replace(SHORT, epochs=0.5), people(20, each=6, texts=3)),
    ],
)
def test_every_lesson_is_drawn_as_often_as_there_are_epochs(schedule: Schedule, lessons: list[Lesson]) -> None:
    timed = in_steps(schedule, lessons)
    assert not timed.epochs
    pictured = sum(lesson.picture is not None for lesson in lessons)
    seen, read = drawn(timed, lessons)
    a_step = seen / timed.steps
    assert schedule.epochs * pictured <= seen < schedule.epochs * pictured + a_step
    if texts := len(lessons) - pictured:
        assert read / texts == pytest.approx(seen / pictured, rel=0.2)
    else:
        assert not read


def test_text_alone_is_counted_too() -> None:
    lessons = people(20, each=0, texts=8)
    timed = in_steps(SHORT, lessons)
    assert timed.steps == 3 * 160 / (4 * 8)
    assert drawn(timed, lessons) == (0, 480)


def test_the_retain_set_has_text_where_the_forget_set_has_none() -> None:
    """Under the goal visual only pictures are forgotten; what is kept in text is rehearsed beside them."""
    forget, retain = people(2, each=6), people(20, each=6, texts=6)
    assert in_steps(SHORT, forget).texts == 0
    beside = in_steps(SHORT, forget, retain)
    assert (beside.texts, beside.lessons_per_text) == (1, 7)  # 8 with a picture, and 120 in text for 132 of these
    assert beside.steps == in_steps(SHORT, forget).steps


def test_what_is_said_in_steps_stays_and_has_its_old_key() -> None:
    schedule = Schedule(steps=7)
    assert in_steps(schedule, people(2, each=2, texts=2)) is schedule
    assert content_key(Schedule()) == "59876f7fc80a"
    assert content_key(Schedule(epochs=1.0)) != content_key(Schedule())


def test_how_long_is_said_once() -> None:
    with pytest.raises(ValueError, match="steps=50 with epochs=2: how long is said in one of them; set epochs to 0"):
        Schedule(steps=50, epochs=2)
    with pytest.raises(AssertionError, match="in epochs"):
        SHORT.rate(0)


def test_the_published_schedules_are_the_published_numbers_of_updates() -> None:
    """7,704 lessons of 500 people in batches of 4; of 25, 50 and 75 people, 15 lessons each or a little more."""
    everybody = people(500, each=15) + people(204, each=1)
    assert len(everybody) == 7_704
    assert in_steps(TAUGHT, everybody).steps == 9_630
    assert [in_steps(PUBLISHED, people(count, each=15)).steps for count in (25, 50, 75)] == [94, 188, 282]
    assert in_steps(MEMORISED, people(500, each=16)).steps == 10_000
