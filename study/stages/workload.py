"""The work of a study before any of it is done: operations counted from shapes, as generous as is plain.

A token costs two operations for each weight of the language model on its way forward, as many on the way back, and as
many again if weights are trained; a patch those of the tower. Attention, which adds 3 % at the shapes of LLaVA-1.5-7B,
and what a method computes once are left out, and every loss is taken to go through the language model. Finished trials
say what it really was (`study.stages.outlay`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from study.contracts import Method
from study.core.terms import Part
from study.data.benchmark import Lesson, Question, Split
from study.data.picture import Picture
from study.settings import Study
from study.training.epochs import in_steps
from study.training.schedule import Schedule

CHARACTERS = 4
"""Of English text in a token of usual tokenizers."""
REPLY = 25
"""Tokens of a free reply: half of the most that are generated."""
INSTRUCTION = 25
"""Tokens of what an official prompt says beside the question: those of MLLMU-Bench take 10 to 30."""
LOSSES = 2
"""A forget batch and a retain batch in each step of a method: what most methods have."""


@dataclass(frozen=True)
class Shapes:
    """What the work of a model depends on."""

    parameters: Mapping[Part, int]
    picture_tokens: int
    """Of a picture in the language model."""
    patches: int
    """Of a picture in the tower."""

    @property
    def token(self) -> float:
        """Operations of a token of the language model, forward."""
        return 2.0 * self.parameters["llm"]

    @property
    def picture(self) -> float:
        """Operations of a picture in tower and projector, forward."""
        return 2.0 * self.parameters["vision"] * self.patches + 2.0 * self.parameters["projector"] * self.picture_tokens

    def read(self, tokens: float, pictures: float) -> float:
        """Operations of reading so many tokens beside those of pictures."""
        return self.token * (tokens + pictures * self.picture_tokens) + self.picture * pictures


def tokens_of(texts: Iterable[str]) -> float:
    """About how many tokens some texts are."""
    return sum(len(text) for text in texts) / CHARACTERS


def trained(shapes: Shapes, schedule: Schedule, lessons: Sequence[Lesson], parts: Sequence[Part]) -> float:
    """Operations of one loss on lessons over all steps of a schedule in steps."""
    if not lessons:
        return 0.0
    text = tokens_of(part for lesson in lessons for part in (lesson.prompt, lesson.answer)) / len(lessons)
    pictured = any(lesson.picture is not None for lesson in lessons)
    pictures = schedule.pictures if pictured else 0
    beside = schedule.pictures * schedule.lessons_per_picture * text if pictured else 0.0
    alone = (schedule.texts if pictured else max(schedule.texts, schedule.pictures)) * schedule.lessons_per_text * text
    whole = "llm" in parts and not schedule.lora_rank
    llm = shapes.token * (beside + alone + pictures * shapes.picture_tokens) * (3 if whole else 2)
    tower = shapes.picture * pictures * (3 if "vision" in parts else 1)
    return schedule.steps * schedule.accumulate * (llm + tower)


def scored(shapes: Shapes, questions: Iterable[Question], *, replies: bool) -> float:
    """Operations of scoring questions, those about one picture together."""
    pictures: set[Picture] = set()
    tokens = 0.0
    for question in questions:
        answers = question.options or (question.answer, *question.perturbed)
        tokens += tokens_of((question.prompt, *answers)) + REPLY * (replies and not question.options)
        if question.picture is not None:
            pictures.add(question.picture)
    return shapes.read(tokens, len(pictures))


def official(shapes: Shapes, questions: Iterable[Question]) -> float:
    """Operations of asking questions by an official protocol: options and instruction in the prompt, each replied to.

    A picture is read once for all questions of a task. The examples, computed once for many, are left out.
    """
    pictures: set[tuple[Picture, str]] = set()
    tokens = 0.0
    for question in questions:
        tokens += tokens_of((question.prompt, *question.options)) + INSTRUCTION + REPLY
        if question.picture is not None:
            pictures.add((question.picture, question.task))
    return shapes.read(tokens, len(pictures))


def unlearned(shapes: Shapes, method: Method, study: Study, split: Split) -> float:
    """Operations of training with the default of a method; 0 if it does not train."""
    if method.schedule is None:
        return 0.0
    forget = [lesson for lesson in split.lessons if split.is_forgotten(lesson, study.goal)]
    retain = [lesson for lesson in split.lessons if not split.is_forgotten(lesson, study.goal)]
    steps = in_steps(method.schedule, forget, retain)
    return LOSSES * trained(shapes, steps, forget, method.trains)


def attacked(shapes: Shapes, study: Study, split: Split, questions: Sequence[Question]) -> float:
    """Operations of one attack of the suite on average: training, if it trains, and asking before and after it."""
    forget = [lesson for lesson in split.lessons if split.is_forgotten(lesson, study.goal)]
    suite = study.attackers()
    if not suite:
        return 0.0
    schedules = [(attack.schedule, attack.trains) for attack in suite]
    training = [trained(shapes, schedule, forget, parts) for schedule, parts in schedules if schedule and parts]
    return math.fsum(training) / len(suite) + 2 * scored(shapes, questions, replies=False)
