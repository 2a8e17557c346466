"""The gate: whether vanilla knows what is to be forgotten, and whether the reference does not."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from study.core.console import console, table
from study.core.errors import Failed
from study.core.layout import StudyFolder
from study.core.rows import read_rows
from study.core.terms import HALVES, ROLES, Group
from study.experiment.trial_spec import Trial
from study.metrics.objectives import SPARED, keep_groups
from study.settings import Study
from study.stages.plan import Plan, label


def check(plan: Plan) -> None:
    """Print what was learned beside the blind level. Raises `Failed` with the numbers if it is not enough."""
    failed = []
    rows: list[list[object]] = []
    for ratio in plan.study.forget_ratios:
        for baseline in plan.baselines(ratio):
            halves = [read_rows(plan.folder.rows(baseline.key, half)) for half in HALVES]
            scores, blind = _by_group(pd.concat(halves)), _blind(plan.folder, baseline.key)
            short = _shortfalls(plan, baseline, scores, blind)
            failed += [f"{label(baseline)}: {what}" for what in short]
            for role in ROLES:
                cells = [scores.get((role, "image_text")), blind.get(role), scores.get((role, "text"))]
                if any(cell is not None for cell in cells):
                    rows.append([label(baseline), role, *("-" if cell is None else cell for cell in cells)])
    table(
        "What was learned: multiple-choice accuracy", ["model", "people", "image", "blind (grey image)", "text"], rows
    )
    console.print(f"goal {plan.study.goal}: the reference {_taught(plan)}")
    if failed:
        raise Failed(f"learning did not pass the gate, so the study stops: {'; '.join(failed)}{_hint(plan.study)}")


def further(plan: Plan, member: Trial) -> list[str]:
    """Where a vanilla or reference of the meta-evaluation's pool falls short, with the numbers.

    It is judged by its rows in the meta-evaluation, which are about the forget people, against the blind level of the
    study's own reference.
    """
    scores = _by_group(read_rows(plan.folder.meta_evaluation(member.key, "plain")))
    control = plan.control(member.ratio)
    return _shortfalls(plan, member, scores, _blind(plan.folder, control.key), some=True)


def _taught(plan: Plan) -> str:
    only = ", ".join(sorted(plan.benchmark.split(plan.study.forget_ratios[0]).forget_attributes))
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
    plan: Plan, baseline: Trial, scores: Mapping[Group, float], blind: Mapping[str, float], *, some: bool = False
) -> list[str]:
    """Where a model falls short; every group must have been scored, unless only `some` were."""
    gate = plan.study.gate
    if baseline.start.kind == "reference":
        options = {len(q.options) for q in plan.benchmark.split(baseline.ratio).questions if q.options}
        most = max(blind["forget"], 1 / min(options)) + gate.blind
        seen = scores["forget", "image_text"]
        return [f"{seen:.3f} on forget images, more than {most:.3f} (blind level + {gate.blind:g})"] * (seen > most)
    known: list[Group] = [("forget", "image_text"), *keep_groups("visual", scores.keys())]  # text, too, of any goal
    wanted = dict.fromkeys(known, gate.known)
    wanted["test", "image_text"] = gate.test
    wanted |= {group: gate.test for group in SPARED if group in scores}  # half of these are rewritten test questions
    return [
        f"{scores[group]:.3f} on {' '.join(group)}, less than {least:g}"
        for group, least in wanted.items()
        if not (some and group not in scores) and scores[group] < least
    ]
