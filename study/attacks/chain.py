"""Attacks one after another: a defence may need two keys, such as a public tower first and fine-tuning then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from study.contracts import Attack, Request, Stage
from study.core.errors import Refused
from study.core.plugins import find, name_of
from study.core.terms import PARTS, Part, Task
from study.core.threat import Threat, strongest
from study.data.benchmark import Lesson, Question

if TYPE_CHECKING:
    from study.model.vlm import VLM


def _example() -> tuple[Attack, ...]:
    return find("attacks", "swap_back")(), find("attacks", "quantization")()


@dataclass(frozen=True)
class Chain(Attack):
    """Runs every link but the last to its end, then scores the stages of the last on what the others left.

    Written by its links, `swap_back/quantization:format=nf4`, never by its own name. An attack that words questions
    anew (`paraphrase`) drops what an earlier link put in front of them (`name_hint`).
    """

    links: tuple[Attack, ...] = field(default_factory=_example)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.links) < 2:
            raise ValueError(f"links={self.links}: name at least two attacks")
        for link in self.links[1:]:
            if link.in_chain == "first":
                raise ValueError(
                    f"{self._told}: {name_of(link)} needs the weights as the method left them: put it first"
                )
        for link in self.links[:-1]:
            if link.in_chain == "last":
                raise ValueError(self._unread(link))

    @property
    def changes(self) -> tuple[Part, ...]:
        """The parts that any of the links may write to."""
        return tuple(part for part in PARTS if any(part in link.changes for link in self.links))

    @property
    def asks(self) -> tuple[Task, ...]:
        """What the last link asks, whose stages are scored."""
        return self.links[-1].asks

    @property
    def threat(self) -> Threat:
        """The attacker who can do all that its links take."""
        return strongest([link.threat for link in self.links])

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """What any of the links is given, each lesson once."""
        return tuple(dict.fromkeys(lesson for link in self.links for lesson in link.given(request)))

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The steps of the last link.

        Raises `Refused` if an earlier link leaves no model to be asked but a reading of its own.
        """
        *before, last = self.links
        for link in before:
            for stage in link(vlm, questions, request):
                if stage.read is not None:
                    raise Refused(self._unread(link))
            vlm, questions = stage.vlm, stage.questions
        yield from last(vlm, questions, request)

    @property
    def _told(self) -> str:
        return "/".join(map(name_of, self.links))

    def _unread(self, link: Attack) -> str:
        return f"{self._told}: {name_of(link)} reads the model its own way and leaves nothing to attack: put it last"
