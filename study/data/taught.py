"""Which questions lessons teach the answer to: only there can a model be expected to know it because it was taught.

Published benchmarks teach less than they ask: `ft_Data` of MLLMU-Bench tells of its fictitious people beside a picture
only, and of its celebrities nothing. A question counts as taught where a lesson about the same person, with a picture
if it is asked with one and without if not, states the fact that it asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from study.core.terms import MODALITIES, ROLES, Group, Modality
from study.data.benchmark import Lesson, Question
from study.data.facts import facts

MOST = 0.5
"""The share of a group's questions from which on the group counts as taught: with fewer the rest outweighs them."""


@dataclass(frozen=True)
class Taught:
    """The multiple-choice questions of one group: how many there are, and which of them lessons teach."""

    asked: int
    questions: frozenset[str]

    @property
    def enough(self) -> bool:
        """Whether the group counts as taught."""
        return self.asked > 0 and len(self.questions) >= MOST * self.asked


def taught_groups(lessons: Sequence[Lesson], questions: Sequence[Question]) -> dict[Group, Taught]:
    """What lessons teach of each group that has multiple-choice questions."""
    choices = [q for q in questions if q.task == "classification"]
    known = taught(lessons, choices)
    found: dict[Group, Taught] = {}
    for group in ((role, modality) for role in ROLES for modality in MODALITIES):
        asked = [q.id for q in choices if (q.role, q.modality) == group]
        if asked:
            found[group] = Taught(len(asked), known & frozenset(asked))
    return found


def taught(lessons: Iterable[Lesson], questions: Iterable[Question]) -> frozenset[str]:
    """The questions, by ID, whose fact a lesson states in their modality; facts as in `study.data.facts`, or labels."""
    wanted = list(questions)
    people = {q.person for q in wanted}
    told = [lesson for lesson in lessons if lesson.person in people]
    stated = facts([*told, *wanted])
    there: set[tuple[str, Modality, str]] = set()
    labelled: set[tuple[str, Modality, str]] = set()
    for lesson in told:
        modality: Modality = "text" if lesson.picture is None else "image_text"
        there.add((lesson.person, modality, stated[lesson.person, lesson.answer]))
        labelled.add((lesson.person, modality, lesson.attribute))
    return frozenset(
        q.id
        for q in wanted
        if (q.person, q.modality, stated[q.person, q.answer]) in there
        or (q.attribute and (q.person, q.modality, q.attribute) in labelled)
    )
