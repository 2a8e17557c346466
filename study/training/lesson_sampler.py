"""The lessons that each step trains on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from study.core.errors import Refused
from study.data.benchmark import Lesson
from study.data.picture import Picture
from study.model.packing import Group, Prompt
from study.training.schedule import Schedule


class Lessons:
    """An endless, seeded stream of groups: pictures in shuffled rounds, a fresh draw of lessons each time.

    A set smaller than a batch is repeated. Raises `Refused` if it is empty.
    """

    def __init__(self, lessons: Sequence[Lesson], schedule: Schedule, seed: int) -> None:
        if not lessons:
            raise Refused("there are no lessons to train on: the set is empty")
        self.schedule = schedule
        self.random = random.Random(seed)
        by_picture: dict[Picture, list[Lesson]] = {}
        for lesson in lessons:
            if lesson.picture is not None:
                by_picture.setdefault(lesson.picture, []).append(lesson)
        self.by_picture = by_picture
        self.texts = [lesson for lesson in lessons if lesson.picture is None]
        self._rounds = self._shuffled()

    def draw(self) -> list[Group]:
        """The groups of one batch, those with pictures first."""
        schedule, groups = self.schedule, []
        if self.by_picture:
            for picture in self.draw_pictures(schedule.pictures):
                groups.append(Group(picture, self._prompts(self.by_picture[picture], schedule.lessons_per_picture)))
        if self.texts:
            texts = schedule.texts if self.by_picture else max(schedule.texts, schedule.pictures)
            groups += [Group(None, self._prompts(self.texts, schedule.lessons_per_text)) for _ in range(texts)]
        return groups

    def draw_pictures(self, count: int) -> list[Picture]:
        """The next `count` pictures. Raises `Refused` if the set has none."""
        if not self.by_picture:
            raise Refused("the set has no lesson with a picture")
        return [next(self._rounds) for _ in range(count)]

    def person_of(self, picture: Picture) -> str:
        """The person in a picture."""
        return self.by_picture[picture][0].person

    def albums(self) -> dict[str, list[Picture]]:
        """The pictures of each person."""
        found: dict[str, list[Picture]] = {}
        for picture in self.by_picture:
            found.setdefault(self.person_of(picture), []).append(picture)
        return found

    def _shuffled(self) -> Iterator[Picture]:
        pictures = list(self.by_picture)
        while True:
            self.random.shuffle(pictures)
            yield from pictures

    def _prompts(self, lessons: Sequence[Lesson], count: int) -> tuple[Prompt, ...]:
        drawn = self.random.sample(lessons, min(count, len(lessons)))
        return tuple(Prompt(lesson.prompt, (lesson.answer,)) for lesson in drawn)
