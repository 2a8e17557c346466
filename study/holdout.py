"""Which facts an attacker is handed, so that the others are held out (Deeb & Roger, arXiv 2410.08827)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from study.questions import Lesson, facts


def some_facts(
    lessons: Sequence[Lesson], *, people: float = 1.0, share: float = 1.0, seed: int, most: int | None = None
) -> tuple[Lesson, ...]:
    """All lessons that state a share of the facts about a share of the people, at least one fact about one person.

    `most` caps the facts of each person. Drawn by the lessons and the seed alone: every model meets the same attacker.
    """
    draw = random.Random(seed)
    everybody = sorted({lesson.person for lesson in lessons})
    draw.shuffle(everybody)
    stated = facts(lessons)
    known: set[tuple[str, str]] = set()
    for person in sorted(everybody[: math.ceil(people * len(everybody))]):
        there = sorted({fact for (who, _), fact in stated.items() if who == person})
        draw.shuffle(there)
        known |= {(person, fact) for fact in there[: math.ceil(share * len(there))][:most]}
    return tuple(x for x in lessons if (x.person, stated[x.person, x.answer]) in known)
