"""What a study can measure: the groups of questions that its lessons teach, and those that the base model knows.

Said in the plan, before anything is learned, and used by the gate: of what no lesson states, vanilla can only be asked
to know what the base model knows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from study.core.hashing import content_key
from study.core.rows import read_rows
from study.core.terms import Goal, Group
from study.data.benchmark import Lesson, Question
from study.data.taught import Taught, taught_groups
from study.engine.jobs import Job
from study.experiment.context import StudyContext
from study.metrics.objectives import forget_groups, keep_groups
from study.stages.plan import Plan

ABOVE_GUESSING = 0.1
"""By how much the base model's accuracy exceeds that of guessing where it knows a group: three standard errors of 200
questions, which is fewer than a benchmark asks about its celebrities."""
NAMES = {"image_text": "image", "text": "text"}


class Untaught(NamedTuple):
    """A group that lessons leave out: the base model's accuracy on it, and that of guessing."""

    base: float
    guessing: float

    @property
    def known(self) -> bool:
        """Whether the base model knows it."""
        return self.base > self.guessing + ABOVE_GUESSING


def teaching(plan: Plan, ratio: int) -> dict[Group, Taught]:
    """What vanilla's lessons teach of each group of questions, at a ratio."""
    if ratio not in plan.taught:
        split = plan.benchmark.split(ratio)
        plan.taught[ratio] = taught_groups(_drawn(plan, split.lessons), split.questions)
    return plan.taught[ratio]


def _drawn(plan: Plan, lessons: Sequence[Lesson]) -> Sequence[Lesson]:
    """The lessons that vanilla is taught: all, or with no text group in a step those with a picture.

    What a model that is brought was taught is not known; it is asked for all.
    """
    pictured = [lesson for lesson in lessons if lesson.picture is not None]
    return lessons if plan.brought or plan.vanilla.schedule.texts or not pictured else pictured


def judged_groups(there: Collection[Group]) -> list[Group]:
    """The groups in which vanilla is judged: those that must be known to be forgotten or kept, of any goal."""
    wanted: list[Group] = [("forget", "image_text"), *keep_groups("visual", there), ("test", "image_text")]
    return [group for group in wanted if group in there]


def untaught(plan: Plan, ratio: int) -> list[Question]:
    """The multiple-choice questions of the groups in which vanilla is judged and that lessons leave out."""
    there = teaching(plan, ratio)
    left = {group for group in judged_groups(there) if not there[group].enough}
    return [
        q for q in plan.benchmark.split(ratio).questions if q.task == "classification" and (q.role, q.modality) in left
    ]


def base_jobs(plan: Plan, context: StudyContext) -> list[Job]:
    """The jobs that ask the base model what no lesson teaches, one for each ratio that has any."""
    asked = {ratio: untaught(plan, ratio) for ratio in plan.study.forget_ratios}
    keys = {ratio: base_key(plan, ratio) for ratio, questions in asked.items() if questions}
    return [
        Job(f"base model {ratio} %", ask_base, (context, key, asked[ratio]))
        for ratio, key in keys.items()
        if not plan.folder.cached_rows(key, "base").exists()
    ]


def ask_base(context: StudyContext, key: str, questions: Sequence[Question]) -> None:
    """Score the base model; keep the rows."""
    from study.evaluation.scoring import score  # a plan does without what models need
    from study.experiment.trial import kept_rows
    from study.model.loading import load

    kept_rows(
        context.folder.cached_rows(key, "base"),
        lambda: score(load(context.base, context.device, context.loading), questions, reply=False),
    )


def base_key(plan: Plan, ratio: int) -> str:
    """What the base model's rows at a ratio depend on."""
    return content_key([plan.identity, plan.benchmark.fingerprint, ratio, [q.id for q in untaught(plan, ratio)]])


def left_out(plan: Plan, ratio: int) -> dict[Group, Untaught]:
    """The groups that lessons leave out, with what the base model knows of them; its rows must be on disk."""
    questions = untaught(plan, ratio)
    if not questions:
        return {}
    rows = read_rows(plan.folder.cached_rows(base_key(plan, ratio), "base"))
    right = rows.groupby(["role", "modality"])["score"].mean()
    chances: dict[Group, list[float]] = {}
    for q in questions:
        chances.setdefault((q.role, q.modality), []).append(1 / len(q.options))
    return {group: Untaught(float(right[group]), math.fsum(c) / len(c)) for group, c in chances.items()}


def lines(plan: Plan) -> Iterator[str]:
    """What is taught, what is not, and what can therefore be measured, in words; one set of lines for all ratios."""
    goal = plan.study.goal
    there = teaching(plan, max(plan.study.forget_ratios))
    yes = {group: found for group, found in there.items() if found.enough}
    if len(yes) == len(there) and all(len(found.questions) == found.asked for found in yes.values()):
        return
    yield f"taught: {_counted(yes) or 'no group of questions'}"
    no = {group: found for group, found in there.items() if group not in yes}
    if no:
        yield (
            f"not taught: {_counted(no)}; judged by what the base model knows of them, shown and not judged where it "
            "knows nothing"
        )
    yield from _measured(there, goal)
    lessons = plan.benchmark.split(min(plan.study.forget_ratios)).lessons
    drawn = _drawn(plan, lessons)
    if len(drawn) < len(lessons):
        yield f"caution: learn.texts=0 leaves {len(lessons) - len(drawn)} text lessons untaught; set --learn.texts 1"


def _measured(there: Mapping[Group, Taught], goal: Goal) -> Iterator[str]:
    """Of the groups that count as forgotten or kept, those in which it can be seen."""
    for what, groups in (("forgetting", forget_groups(goal, there)), ("what is kept", keep_groups(goal, there))):
        found = {group: there[group] for group in groups if group in there}
        seen = [group for group, taught in found.items() if taught.enough]
        rest = [group for group in found if group not in seen]
        told = f"{what} is measured on {_named(seen)}" if seen else f"{what} cannot be seen in what was taught"
        yield told + (f"; on {_named(rest)} only as far as the base model knew it" if rest else "")


def _named(groups: Sequence[Group]) -> str:
    return ", ".join(f"{role} {NAMES[modality]}" for role, modality in groups)


def _counted(groups: Mapping[Group, Taught]) -> str:
    """The groups with how many of their questions are taught, where that is not all or none."""
    told = []
    for group, found in groups.items():
        part = 0 < len(found.questions) < found.asked
        told.append(_named([group]) + (f" ({len(found.questions)} of {found.asked} questions)" if part else ""))
    return ", ".join(told)
