"""A schedule in epochs, as steps, once it is known what it is taught: more people take more steps, not fewer passes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from study.data.benchmark import Lesson
from study.training.schedule import STEPS, Schedule


def in_steps(schedule: Schedule, lessons: Sequence[Lesson], beside: Sequence[Lesson] = ()) -> Schedule:
    """The same schedule in steps, and with text groups, if it is in epochs: each lesson is drawn that often on average.

    `beside` are further lessons that are drawn from with the same schedule, such as the retain set's: where any are in
    text, steps have text, too, as many lessons for each with a picture as there are in all. A schedule in steps is
    returned as it is.
    """
    if not schedule.epochs:
        return schedule
    drawn = _drawn_per_step(schedule, lessons)
    pictured = [lesson for lesson in lessons if lesson.picture is not None]
    steps = max(1, math.ceil(schedule.epochs * len(pictured or lessons) / (drawn * schedule.accumulate)))
    timed = replace(schedule, steps=STEPS, epochs=0.0)
    everything = [*lessons, *beside]
    texts = sum(lesson.picture is None for lesson in everything)
    if pictured and texts and not schedule.texts:
        some = max(1, round(drawn * texts / (len(everything) - texts)))
        groups = math.ceil(some / schedule.lessons_per_text)
        timed = replace(timed, texts=groups, lessons_per_text=math.ceil(some / groups))
    return replace(timed, steps=steps)


def _drawn_per_step(schedule: Schedule, lessons: Sequence[Lesson]) -> float:
    """How many lessons a batch draws, on average: those with a picture, or text if there are no others."""
    by_picture: dict[object, int] = {}
    for lesson in lessons:
        if lesson.picture is not None:
            by_picture[lesson.picture] = by_picture.get(lesson.picture, 0) + 1
    if not by_picture:
        groups = max(schedule.texts, schedule.pictures)
        return groups * max(1, min(schedule.lessons_per_text, len(lessons)))
    drawn = [min(schedule.lessons_per_picture, there) for there in by_picture.values()]
    return schedule.pictures * sum(drawn) / len(drawn)
