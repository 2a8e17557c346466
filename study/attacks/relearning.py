"""Relearning: fine-tune on a part of what was forgotten and see whether the rest comes back.

Facts and people that the attacker was not given are what counts (Deeb & Roger, arXiv 2410.08827; PAVA's held-out
identities); steps are scored along the way (UNDO's curve).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from study import losses
from study.contracts import Request, Stage
from study.packing import logits, pack, token_logps
from study.questions import Lesson, Question, facts
from study.training import Lessons, Schedule, steps
from study.vlm import PARTS, VLM, Part


@dataclass(frozen=True)
class Relearning:
    """Fine-tunes with cross-entropy on some facts of some forget people. An instruction is simply dropped."""

    people: float = 0.5
    """Share of the forget people that the attacker is given, at least one."""
    facts: float = 0.5
    """Share of their facts that the attacker is given, at least one."""
    trains: tuple[Part, ...] = PARTS
    score_at: tuple[int, ...] = (5, 10, 20, 40)
    """Steps after which the model is scored."""
    schedule: Schedule = Schedule(steps=40, decay="constant")

    def __post_init__(self) -> None:
        for name in ("people", "facts"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: a share above 0 and at most 1")
        if not self.score_at or min(self.score_at) < 1 or max(self.score_at) > self.schedule.steps:
            raise ValueError(f"score_at={self.score_at}: choose steps from 1 to schedule.steps={self.schedule.steps}")

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """Some lessons of some people. Drawn by the study's request alone: every model meets the same attacker."""
        draw = random.Random(request.split.ratio)
        people = sorted(request.split.forget_people)
        draw.shuffle(people)
        chosen = set(people[: math.ceil(self.people * len(people))])
        stated = facts(request.forget)
        known: set[tuple[str, str]] = set()
        for person in sorted(chosen):
            there = sorted({fact for (who, _), fact in stated.items() if who == person})
            draw.shuffle(there)
            known |= {(person, fact) for fact in there[: math.ceil(self.facts * len(there))]}
        return tuple(x for x in request.forget if (x.person, stated[x.person, x.answer]) in known)

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Fine-tune, yielding the model as found and at each of `score_at`."""
        yield Stage(0, vlm, questions)
        target = vlm.with_instruction("")
        drawn = Lessons(self.given(request), self.schedule, request.seed)

        def loss(step: int) -> Tensor:
            batch = pack(target, drawn.draw())
            return losses.nll(token_logps(logits(target, batch), batch))

        for done, _ in steps(target, self.trains, self.schedule, loss):
            if done in self.score_at:
                yield Stage(done, target, questions)
