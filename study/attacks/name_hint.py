"""The name in front of the picture question: what visual unlearning leaves open by construction.

Under the goal `visual` the reference keeps all that text says of the forget people. Whoever knows the name walks round
the picture, so a high accuracy here is no failure of the method: beside the reference under the same hint, which is
the control, it tells apart a model that no longer recognizes a face from one that lost the person. Under the goal
`full` nothing should come back. Of the input-side suites this is "textual name given".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from study.contracts import Attack, Request, Stage
from study.data.benchmark import Lesson, Question
from study.data.facts import plain
from study.model.vlm import VLM

ATTRIBUTE = "name"


@dataclass(frozen=True)
class NameHint(Attack):
    """Names the person in the text of every picture question; costs nothing but knowing who it is.

    The name is what the person's lessons labelled with the attribute "name" state. Text questions, which name the
    person anyway, stay as they are, and so do questions about others than the forget people whose name is nowhere.
    """

    hint: str = "This person is {name}."
    """The sentence in front of the question."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "{name}" not in self.hint:
            raise ValueError(f"hint={self.hint!r}: say with {{name}} where the name stands")

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """The names: questions that ask for them do not count."""
        return tuple(lesson for lesson in request.forget if lesson.attribute == ATTRIBUTE)

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Ask with the name. Raises `ValueError` if a forget person's name is not labelled."""
        names = _names(request)
        pictured = [q for q in questions if q.picture is not None]
        unnamed = sorted({q.person for q in pictured if q.person in request.split.forget_people} - names.keys())
        if unnamed:
            raise ValueError(
                f"no lesson about {unnamed[0]} ({len(unnamed)} people in all) is labelled with the attribute "
                f"{ATTRIBUTE!r}, so there is no name to give: label them in the dataset's files with the key Attribute"
            )
        hinted = {q.id: f"{self._said(names[q.person])} {q.prompt}" for q in pictured if q.person in names}
        yield Stage(1, vlm, [replace(q, prompt=hinted.get(q.id, q.prompt)) for q in questions])

    def _said(self, name: str) -> str:
        return self.hint.replace("{name}", name)


def _names(request: Request) -> dict[str, str]:
    """The name of each person: the shortest answer of all lessons labelled as such, which the longer ones contain."""
    told: dict[str, set[str]] = {}
    for lesson in request.split.lessons:
        if lesson.attribute == ATTRIBUTE:
            told.setdefault(lesson.person, set()).add(lesson.answer.strip().rstrip("."))
    return {person: min(answers, key=lambda a: (len(plain(a)), a)) for person, answers in told.items()}
