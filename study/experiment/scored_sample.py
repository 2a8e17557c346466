"""What a trial of the search is scored on: all that must go, and of what must stay as many questions as are needed.

Of a benchmark with thousands of questions about people to be kept, a fixed part tells utility as well. It is drawn by
person, evenly over all people of a group, each with every question of the validation half about them: so all kinds of
fact are in it, and a picture that is encoded serves several questions. Baselines are asked everything, and so is every
winner on the test half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from study.core.sampling import spaced
from study.core.terms import Goal, Group
from study.data.benchmark import Question
from study.metrics.objectives import forget_groups

SPREAD = 0.5
"""The largest standard deviation that the probability of the right option can have over questions."""


def scored_sample(questions: Sequence[Question], goal: Goal, error: float) -> list[Question]:
    """Those of the validation half's questions that are asked, in their order; an `error` of 0 asks all.

    `error` is the standard error of a kept group's mean probability if its answers are independent: 0.03 takes 278
    questions. Trials are compared on the same questions, so what tells them apart is smaller.
    """
    if not error:
        return list(questions)
    wanted, whole = math.ceil((SPREAD / error) ** 2), forget_groups(goal)
    groups: dict[Group, dict[str, list[str]]] = {}
    for q in questions:
        groups.setdefault((q.role, q.modality), {}).setdefault(q.person, []).append(q.id)
    asked: set[str] = set()
    for group, people in groups.items():
        each = sum(map(len, people.values())) / len(people)
        some = sorted(people) if group in whole else spaced(sorted(people), math.ceil(wanted / each))
        asked.update(id for person in some for id in people[person])
    return [q for q in questions if q.id in asked]
