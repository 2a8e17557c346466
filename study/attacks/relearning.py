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
from study.core.errors import Refused
from study.core.terms import PARTS, Part
from study.data.benchmark import Lesson, Question
from study.data.facts import sample_facts
from study.data.image_edits import encoded, noise
from study.data.names import NAME
from study.data.picture import Picture
from study.model.likelihood import cross_entropy
from study.model.packing import Group, pack
from study.model.vlm import VLM
from study.training.loop import steps
from study.training.retaining import retaining
from study.training.schedule import Schedule
from study.training.views import Views

Data = Literal["forget", "names", "views", "benign", "strangers", "noise"]
NOISE_SIDE = 48
"""Pixels: no more than a model sees, since noise that is scaled down is averaged to grey."""
UNRELATED: tuple[Data, ...] = ("benign", "strangers", "noise")


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
    showed some retained person. `noise`: the same with as many pictures of pure noise as forget pictures, data unlike
    any. With the last three nothing of the forget set is given, so everything is held out."""
    people: float = 0.5
    """Share of the forget people that the attacker is given, at least one."""
    facts: float = 0.5
    """Share of their facts that the attacker is given, at least one."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on what `benign` has, drawn beside the data in every step, so that nothing else is
    lost while facts come back; it doubles the cost of a step. 0 leaves it out."""
    augment: float = 0.0
    """Share of the pictures that are rotated, scaled, stretched, shifted, dimmed and noised."""
    trains: tuple[Part, ...] = PARTS
    score_at: tuple[int, ...] = (5, 10, 20, 40)
    """Steps after which the model is scored, as far as the schedule goes; after its last step it always is."""
    schedule: Schedule = Schedule(steps=40, decay="constant")

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.share(self, "people", "facts")
        validation.not_negative(self, "retain_weight")
        validation.fraction(self, "augment")
        if any(step < 1 for step in self.score_at):
            raise ValueError(f"score_at={self.score_at}: choose steps from 1; step 0 is scored anyway")
        if not self.trains:
            raise ValueError("trains=(): name at least one of vision, projector and llm")

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """Some lessons of some people. Drawn by the study's request alone: every model meets the same attacker.

        Raises `Refused` if the data has no such lesson.
        """
        if self.data in UNRELATED:
            return ()
        share = 1.0 if self.data == "names" else self.facts
        known = sample_facts(request.forget, people=self.people, share=share, seed=request.split.ratio)
        if self.data == "names":
            return self._found([x for x in known if x.attribute == NAME], "is labelled with the attribute name")
        if self.data == "views":
            shown = {question.picture for question in request.split.questions}
            return self._found([x for x in known if x.picture not in {*shown, None}], "has a picture nobody asks about")
        return known

    def taught(self, request: Request) -> tuple[Lesson, ...]:
        """The lessons that are trained on. Raises `Refused` if the data has no such lesson."""
        if self.data not in UNRELATED:
            return self.given(request)
        others = self._others(request)
        if self.data == "benign":
            return others
        pictures = request.strangers if self.data == "strangers" else _noise(request)
        return self._found(_dealt(others, pictures, request.split.ratio), "with a picture could be lent to another's")

    def _others(self, request: Request) -> tuple[Lesson, ...]:
        """The retain lessons, less what they say of the forget people."""
        others = [x for x in request.retain if x.person not in request.split.forget_people]
        return self._found(others, "is about somebody who is kept")

    def _found(self, lessons: Sequence[Lesson], what: str) -> tuple[Lesson, ...]:
        if not lessons:
            raise Refused(f"data={self.data!r}: no lesson {what}; choose other data for the attacker")
        return tuple(lessons)

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Fine-tune, yielding the model at each of `score_at`."""
        target, schedule, seed = vlm.with_instruction(""), self.schedule, request.seed
        views = Views(target, self.augment, seed)

        def taught(groups: list[Group]) -> Tensor:
            shown = [group.picture for group in groups if group.picture is not None]
            return cross_entropy(target, pack(target, groups, views(shown)[0] if shown else None))

        data, others = self.taught(request), self._others(request) if self.retain_weight else ()
        loss = retaining(taught, data, taught, others, weight=self.retain_weight, schedule=schedule, seed=seed)
        for done, _ in steps(target, self.trains, schedule, loss, seed=seed):
            if done in self.score_at or done == schedule.steps:
                yield Stage(done, target, questions)


def _noise(request: Request) -> list[Picture]:
    """Noise in place of each forget picture."""
    shown = sorted({x.picture.key for x in request.forget if x.picture is not None})
    return [encoded(noise(NOISE_SIDE, int(key, 16)), f"noise in place of picture {key}") for key in shown]


def _dealt(lessons: Sequence[Lesson], pictures: Sequence[Picture], ratio: int) -> list[Lesson]:
    """Each of some pictures with the lessons of one drawn picture."""
    draw = random.Random(ratio)
    albums: dict[Picture, list[Lesson]] = {}
    for lesson in lessons:
        if lesson.picture is not None:
            albums.setdefault(lesson.picture, []).append(lesson)
    pictured = list(albums.values())
    return [
        replace(lesson, person=f"nobody {number}", picture=picture)
        for number, picture in enumerate(pictures if pictured else ())
        for lesson in draw.choice(pictured)
    ]
