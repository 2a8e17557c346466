"""The gate: whether vanilla knows what is to be forgotten, and whether the reference does not.

Vanilla is judged by what lessons taught it. What they leave out it must know about as well as the base model does; what
neither teaches nor the base model knows is shown and not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Literal, NamedTuple

import pandas as pd

from study.core.console import console, table
from study.core.errors import Failed
from study.core.layout import StudyFolder
from study.core.rows import read_rows
from study.core.terms import ROLES, Group
from study.data.taught import Taught
from study.experiment.trial_spec import Trial
from study.metrics.objectives import keep_groups
from study.settings import Gate, Study
from study.stages.known import Told, asked_rows, known_at
from study.stages.measurable import Untaught, left_out, teaching
from study.stages.plan import Plan, label


class Standing(NamedTuple):
    """By what vanilla is judged in each group: by what lessons teach, or by the base model where they leave it out."""

    taught: Mapping[Group, Taught]
    left_out: Mapping[Group, Untaught]


def _standing(plan: Plan, ratio: int) -> Standing:
    return Standing(teaching(plan, ratio), left_out(plan, ratio))


class Shortfall(NamedTuple):
    """Where a model falls short, and in which way: it learned too little, lost what the base model knew, or a reference
    knows too much."""

    kind: Literal["little", "lost", "much"]
    told: str


def check(plan: Plan) -> dict[int, Told]:
    """Print what was learned beside the blind level; what vanilla knows at each ratio.

    Raises `Failed` with the numbers if it is not enough.
    """
    failed: list[Shortfall] = []
    rows: list[list[object]] = []
    known: dict[int, Told] = {}
    for ratio in plan.study.forget_ratios:
        standing, baselines = _standing(plan, ratio), plan.baselines(ratio)
        every = [asked_rows(plan.folder, baseline.key) for baseline in baselines]
        known[ratio] = known_at(plan, ratio, every)
        for baseline, asked in zip(baselines, every, strict=True):
            scores, blind = _by_group(asked), _blind(plan.folder, baseline.key)
            short = _shortfalls(plan, baseline, asked, blind, standing)
            failed += [Shortfall(kind, f"{label(baseline)}: {what}") for kind, what in short]
            for role in ROLES:
                cells = [scores.get((role, "image_text")), blind.get(role), scores.get((role, "text"))]
                if any(cell is not None for cell in cells):
                    rows.append([label(baseline), role, *("-" if cell is None else cell for cell in cells)])
        for line in (*_not_taught(standing, ratio), f"{ratio} %: {known[ratio].sentence}"):
            console.print(line, markup=False)
    table(
        "What was learned: multiple-choice accuracy", ["model", "people", "image", "blind (grey image)", "text"], rows
    )
    console.print(f"goal {plan.study.goal}: the reference {_taught(plan)}")
    if plan.study.measure == "known":
        few = ((ratio, what) for ratio, told in known.items() for what in _too_few(told))
        failed += [Shortfall("little", f"{ratio} %: {what}") for ratio, what in few]
    if failed:
        told = "; ".join(short.told for short in failed)
        said = told + _hint(plan.study) + _remedy(plan, known.values(), {short.kind for short in failed})
        raise Failed(f"learning did not pass the gate, so the study stops: {said}")
    return known


def _too_few(told: Told) -> list[str]:
    """Why nothing can be measured on what is known."""
    if told.missing:
        return [f"of {', '.join(told.missing)} nothing is known in one of the halves ({told.sentence})"]
    return [] if told.tellable < 1 else [told.sentence]


def _remedy(plan: Plan, known: Iterable[Told], kinds: Set[str]) -> str:
    """What to do about it, with the settings to add to the same command, which continues in the same folder.

    Longer teaching helps where vanilla learned too little, and only there: of what it lost it would lose more.
    """
    study, found = plan.study, []
    if study.measure == "all" and kinds - {"lost"} and not any(map(_too_few, known)):
        found.append("--measure known, by which only what vanilla knows counts")
    if "little" in kinds and plan.brought:
        found.append("--vanilla and a model that was fine-tuned for longer")
    elif "little" in kinds:
        long = study.learn
        more = f"--learn.epochs {2 * long.epochs:g}" if long.epochs else f"--learn.steps {2 * long.steps}"
        found.append(f"{more}, to teach for longer")
    elif "lost" in kinds and plan.brought:
        found.append("--vanilla and a model that was fine-tuned more gently")
    elif "lost" in kinds:
        found.append(f"--learn.learning-rate {study.learn.learning_rate / 2:g}, to teach more gently")
    if "lost" in kinds:
        found.append("a lower --gate.base, if it is enough to keep what is left of that")
    return f". Run the same command again with {', or with '.join(found)}" if found else ""


def further(plan: Plan, member: Trial) -> list[str]:
    """Where a vanilla or reference of the meta-evaluation's pool falls short, with the numbers.

    It is judged by its rows in the meta-evaluation, which are about the forget people, against the blind level of the
    study's own reference.
    """
    rows = read_rows(plan.folder.meta_evaluation(member.key, "plain"))
    control = plan.control(member.ratio)
    short = _shortfalls(plan, member, rows, _blind(plan.folder, control.key), _standing(plan, member.ratio), some=True)
    return [shortfall.told for shortfall in short]


def _taught(plan: Plan) -> str:
    if plan.brought:
        return "is as it was brought" if plan.brought.references else "is the base model, which was taught nothing"
    split = plan.benchmark.split(plan.study.forget_ratios[0])
    only = ", ".join(sorted(split.forget_attributes))
    if plan.study.goal == "visual" and not only and all(lesson.picture for lesson in split.lessons):
        return "never saw the forget people's pictures; nothing is taught in text"
    if plan.study.goal == "visual":
        return "was taught the forget people in text and " + (
            f"was not taught the {only} of the people in their pictures" if only else "never saw their pictures"
        )
    return f"was not taught their {only}" if only else "was taught nothing about the forget people"


def _hint(study: Study) -> str:
    """A hint about attributes under the goal `visual`."""
    if study.goal != "visual" or not study.forget_attributes:
        return ""
    return (
        ". A model that learns from pictures who a person is, and from text what the pictures must not reveal, "
        "combines the two: ask for attributes under --goal full"
    )


def _by_group(rows: pd.DataFrame) -> dict[Group, float]:
    """The accuracy of classification."""
    groups = rows[rows["task"] == "classification"].groupby(["role", "modality"])["score"].mean()
    return {group: float(groups[group]) for group in groups.index}


def _blind(folder: StudyFolder, key: str) -> dict[str, float]:
    rows = read_rows(folder.rows(key, "blind"))
    return {str(role): float(score) for role, score in rows.groupby("role")["score"].mean().items()}


def _shortfalls(
    plan: Plan,
    baseline: Trial,
    rows: pd.DataFrame,
    blind: Mapping[str, float],
    standing: Standing,
    *,
    some: bool = False,
) -> list[Shortfall]:
    """Where a model falls short; every group must have been scored, unless only `some` were."""
    scores, all_count = _by_group(rows), plan.study.measure == "all"
    if baseline.start.kind == "reference":
        if not all_count:  # what a reference knows is not counted
            return []
        return _too_much(plan, baseline.ratio, scores["forget", "image_text"], blind["forget"])
    wanted: list[Group] = [("forget", "image_text"), *keep_groups("visual", scores.keys()), ("test", "image_text")]
    short: list[Shortfall] = []
    for group in wanted:
        if (all_count or group in standing.left_out) and not (some and group not in scores):
            short += _too_little(plan.study.gate, group, rows, scores[group], standing)
    return short


def _too_much(plan: Plan, ratio: int, seen: float, blind: float) -> list[Shortfall]:
    """What a reference knows of pictures that it was not taught."""
    margin = plan.study.gate.blind
    options = {len(q.options) for q in plan.benchmark.split(ratio).questions if q.options}
    most = max(blind, 1 / min(options)) + margin
    told = f"{seen:.3f} on forget images, more than {most:.3f} (blind level + {margin:g})"
    return [Shortfall("much", told)] * (seen > most)


def _too_little(gate: Gate, group: Group, rows: pd.DataFrame, score: float, standing: Standing) -> list[Shortfall]:
    """What vanilla does not know of a group: of what was taught, else of what the base model knew."""
    name = " ".join(group)
    if group in standing.left_out:
        base = standing.left_out[group]
        if base.known and score < gate.base * base.base:
            told = f"{score:.3f} on {name}, which was not taught, less than {gate.base:g} of the base {base.base:.3f}"
            return [Shortfall("lost", told)]
        return []
    # half of what is asked of the spared are rewritten test questions
    least = gate.test if group[0] in ("test", "spared") else gate.known
    taught = standing.taught[group].questions
    known = _by_group(rows[rows["question"].isin(taught)]).get(group, score)
    return [Shortfall("little", f"{known:.3f} on {name}, less than {least:g}")] * (known < least)


def _not_taught(standing: Standing, ratio: int) -> Iterator[str]:
    """How the groups that lessons leave out are judged."""
    for (role, modality), base in standing.left_out.items():
        judged = "is what vanilla must keep" if base.known else "is near guessing, so this is not judged"
        yield f"{ratio} %: {role} {modality} was not taught; the base model's accuracy of {base.base:.3f} {judged}"
