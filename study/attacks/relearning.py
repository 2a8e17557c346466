"""Relearning: fine-tune on a part of what was forgotten, or on something else, and see whether the rest comes back.

Facts and people that the attacker was not given are what counts (Deeb & Roger, arXiv 2410.08827; PAVA's held-out
identities); steps are scored along the way (UNDO's curve). Fine-tuning on unrelated lessons can be enough (Hu et al.,
arXiv 2406.13356; VLM-UnL-Attack, arXiv 2605.26992).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from study.contracts import Attack, Request, Stage
from study.core import validation
from study.core.terms import PARTS, Part
from study.data.benchmark import Lesson, Question
from study.data.facts import sample_facts
from study.data.picture import Picture
from study.model.likelihood import cross_entropy
from study.model.packing import pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import steps
from study.training.schedule import Schedule

Data = Literal["forget", "names", "views", "benign", "strangers"]
UNRELATED: tuple[Data, ...] = ("benign", "strangers")


@dataclass(frozen=True)
class Relearning(Attack):
    """Fine-tunes with cross-entropy on lessons that the attacker has. An instruction is simply dropped.

    `trains` is the attacker's choice, not the defence's: attack with what the method trained, with what it froze and
    with all parts, since which of them brings the most back differs from method to method.
    """

    data: Data = "forget"
    """`forget`: the chosen facts of the chosen people. `names`: of these people the names alone, whatever `facts` says.
    `views`: the chosen facts, but never on a picture that a question shows. `benign`: the retain set, less what it
    says of the forget people. `strangers`: the pictures of people who are nowhere else, each taught as though it
    showed some retained person. With the last two nothing of the forget set is given, so everything is held out."""
    people: float = 0.5
    """Share of the forget people that the attacker is given, at least one."""
    facts: float = 0.5
    """Share of their facts that the attacker is given, at least one."""
    trains: tuple[Part, ...] = PARTS
    score_at: tuple[int, ...] = (5, 10, 20, 40)
    """Steps after which the model is scored, as far as the schedule goes; after its last step it always is."""
    schedule: Schedule = Schedule(steps=40, decay="constant")

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.share(self, "people", "facts")
        if any(step < 1 for step in self.score_at):
            raise ValueError(f"score_at={self.score_at}: choose steps from 1; step 0 is scored anyway")
        if not self.trains:
            raise ValueError("trains=(): name at least one of vision, projector and llm")

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """Some lessons of some people. Drawn by the study's request alone: every model meets the same attacker.

        Raises `ValueError` if the data has no such lesson.
        """
        if self.data in UNRELATED:
            return ()
        share = 1.0 if self.data == "names" else self.facts
        known = sample_facts(request.forget, people=self.people, share=share, seed=request.split.ratio)
        if self.data == "names":
            return self._found([x for x in known if x.attribute == "name"], "is labelled with the attribute name")
        if self.data == "views":
            shown = {question.picture for question in request.split.questions}
            return self._found([x for x in known if x.picture not in {*shown, None}], "has a picture nobody asks about")
        return known

    def taught(self, request: Request) -> tuple[Lesson, ...]:
        """The lessons that are trained on. Raises `ValueError` if the data has no such lesson."""
        if self.data not in UNRELATED:
            return self.given(request)
        others = [x for x in request.retain if x.person not in request.split.forget_people]
        if self.data == "benign":
            return self._found(others, "is about somebody who is kept")
        return self._found(_dealt(others, request), "with a picture could be lent to a stranger's")

    def _found(self, lessons: Sequence[Lesson], what: str) -> tuple[Lesson, ...]:
        if not lessons:
            raise ValueError(f"data={self.data!r}: no lesson {what}; choose other data for the attacker")
        return tuple(lessons)

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Fine-tune, yielding the model at each of `score_at`."""
        target = vlm.with_instruction("")
        drawn = Lessons(self.taught(request), self.schedule, request.seed)

        def loss(step: int) -> Tensor:
            return cross_entropy(target, pack(target, drawn.draw()))

        for done, _ in steps(target, self.trains, self.schedule, loss, seed=request.seed):
            if done in self.score_at or done == self.schedule.steps:
                yield Stage(done, target, questions)


def _dealt(lessons: Sequence[Lesson], request: Request) -> list[Lesson]:
    """Each stranger's picture with the lessons of one drawn picture."""
    draw = random.Random(request.split.ratio)
    albums: dict[Picture, list[Lesson]] = {}
    for lesson in lessons:
        if lesson.picture is not None:
            albums.setdefault(lesson.picture, []).append(lesson)
    pictured = list(albums.values())
    return [
        replace(lesson, person=f"stranger {number}", picture=picture)
        for number, picture in enumerate(request.strangers if pictured else ())
        for lesson in draw.choice(pictured)
    ]
