"""The gate: whether anything was learned that could be forgotten, and whether the reference is free of it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from study.console import console, table
from study.contracts import Trial
from study.objectives import SPARED, Group, keep_groups
from study.plan import Failed, Plan, label
from study.questions import ROLES
from study.settings import Study
from study.store import Folder, read_rows


def check(plan: Plan) -> None:
    """Print what was learned beside the blind level. Raises `Failed` with the numbers if it is not enough."""
    failed = []
    rows: list[list[object]] = []
    for ratio in plan.study.forget_ratios:
        for yardstick in plan.yardsticks(ratio):
            scores, blind = _accuracies(plan.folder, yardstick.key)
            short = _shortfalls(plan, yardstick, scores, blind)
            failed += [f"{label(yardstick)}: {what}" for what in short]
            for role in ROLES:
                cells = [scores.get((role, "image_text")), blind.get(role), scores.get((role, "text"))]
                if any(cell is not None for cell in cells):
                    rows.append([label(yardstick), role, *("-" if cell is None else cell for cell in cells)])
    table(
        "What was learned: accuracy of classification", ["model", "people", "image", "blind (grey image)", "text"], rows
    )
    console.print(f"goal {plan.study.goal}: the reference {_taught(plan)}")
    if failed:
        raise Failed(f"learning did not pass the gate, so nothing is unlearned: {'; '.join(failed)}{_hint(plan.study)}")


def _taught(plan: Plan) -> str:
    only = ", ".join(sorted(plan.benchmark.split(plan.study.forget_ratios[0]).forget_attributes))
    if plan.study.goal == "visual":
        return "keeps their text and " + (
            f"was not taught {only} of their pictures" if only else "never saw their pictures"
        )
    return f"was not taught {only} of them" if only else "was taught nothing of them"


def _hint(study: Study) -> str:
    """What is to be known about attributes under the goal `visual`."""
    if study.goal != "visual" or not study.forget_attributes:
        return ""
    return (
        ". A model that is told by pictures who it is, and by text what these pictures were not to tell, puts the two "
        "together: ask for attributes under --goal full"
    )


def _accuracies(folder: Folder, key: str) -> tuple[dict[Group, float], dict[str, float]]:
    rows = pd.concat([read_rows(folder.rows(key, half)) for half in ("select", "report")])
    choices = rows[rows["task"] == "classification"]
    blind = read_rows(folder.rows(key, "blind"))
    groups = choices.groupby(["role", "modality"])["score"].mean()
    return (
        {group: float(groups[group]) for group in groups.index},
        {str(role): float(score) for role, score in blind.groupby("role")["score"].mean().items()},
    )


def _shortfalls(plan: Plan, yardstick: Trial, scores: Mapping[Group, float], blind: Mapping[str, float]) -> list[str]:
    gate = plan.study.gate
    if yardstick.start.kind == "reference":
        options = {len(q.options) for q in plan.benchmark.split(yardstick.ratio).questions if q.options}
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
        if scores[group] < least
    ]
