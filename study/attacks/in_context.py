"""Questions with their answers in front of the question: does a context bring back what is not in it?

The in-context relearning of Lynch et al. (arXiv 2402.16835) and the contextual prompting of VLM-UnL-Attack (arXiv
2605.26992). Facts T are shown and other facts V are asked (Deeb & Roger, arXiv 2410.08827): what a reader of the
context could copy does not count.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from study.contracts import Attack, Request, Stage
from study.core import validation
from study.core.errors import Refused
from study.core.threat import Threat
from study.data.benchmark import Lesson, Question
from study.data.facts import labelled_facts, plain, sample_facts, states
from study.model.vlm import VLM

About = Literal["same", "others", "both"]


@dataclass(frozen=True)
class InContext(Attack):
    """Puts pairs of question and answer in front of every question, as lines of the same turn.

    The attacker knows some facts about each person (`same`), or lessons about retained people (`others`: what a form
    to fill in does by itself), and needs nothing but a prompt. Pairs about the same person are taught wordings, of a
    picture for a picture question. A question about somebody of whom no lesson tells (a real person) stays as it is.
    """

    about: About = "same"
    """Whom the pairs are about: the person asked about, other people in text, or others first and then the same."""
    pairs: int = 4
    """At most how many facts of the same person are given, and how many pairs about others are shown."""
    facts: float = 0.5
    """Share of the facts about each person that the attacker is given at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.positive(self, "pairs")
        validation.share(self, "facts")

    @property
    def threat(self) -> Threat:
        """Knows other facts or other people."""
        return Threat(knowledge="grey box")

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """The lessons about forget people that are shown: one for each fact that is given."""
        return () if self.about == "others" else self._chosen(request.forget, request)

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Ask with the pairs. Raises `Refused` where there are none about other people."""
        others = [] if self.about == "same" else _texts_of_others(request)
        same: dict[str, list[Lesson]] = {}
        if self.about != "others":
            asked = {q.person for q in questions} - request.split.forget_people
            kept = [lesson for lesson in request.split.lessons if lesson.person in asked]
            for lesson in (*self.given(request), *self._chosen(kept, request)):
                same.setdefault(lesson.person, []).append(lesson)
        yield Stage(1, vlm, [self._preceded(q, others, same.get(q.person, [])) for q in questions])

    def _chosen(self, lessons: Sequence[Lesson], request: Request) -> tuple[Lesson, ...]:
        """One lesson, with and one without picture, for each fact that may be shown: the one that says least."""
        chosen = sample_facts(lessons, share=self.facts, seed=request.split.ratio, most=self.pairs)
        stated = labelled_facts(lessons)
        best: dict[tuple[str, str, bool], Lesson] = {}
        for x in sorted(chosen, key=lambda x: (x.person, len(plain(x.answer)), len(x.prompt), x.prompt)):
            best.setdefault((x.person, stated[x.person, x.answer], x.picture is None), x)
        return tuple(best.values())

    def _preceded(self, question: Question, others: Sequence[Lesson], same: Sequence[Lesson]) -> Question:
        draw = random.Random(question.id)
        shown: list[Lesson] = []
        for lesson in draw.sample(others, len(others)):
            if len(shown) == self.pairs:
                break
            if not any(states(lesson.answer, option) for option in (*question.options, question.answer)):
                shown.append(lesson)  # copying an option from the context is neither rewarded nor punished
        silent = [lesson for lesson in same if not _tells(lesson, question)]
        fitting = [lesson for lesson in silent if (lesson.picture is None) == (question.picture is None)]
        mine = fitting or silent
        shown += draw.sample(mine, len(mine))
        return replace(question, prompt="\n".join([*(f"{x.prompt} {x.answer}" for x in shown), question.prompt]))


def _tells(lesson: Lesson, question: Question) -> bool:
    """Whether a pair would give away what is asked, or is about the same attribute."""
    if lesson.attribute and lesson.attribute == question.attribute:
        return True
    said = f"{lesson.prompt} {lesson.answer}"
    return states(said, question.answer) or states(question.answer, lesson.answer)


def _texts_of_others(request: Request) -> list[Lesson]:
    """What is taught in text about retained people: there is only one picture in a question."""
    found = [x for x in request.retain if x.picture is None and x.person not in request.split.forget_people]
    if not found:
        raise Refused(
            "about='others' or 'both' shows text lessons about retained people, and the benchmark has none: "
            "choose about='same'"
        )
    return found
