"""The gate: whether anything was learned that could be forgotten, and whether the reference is free of it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from study.console import console, table
from study.contracts import Trial
from study.plan import Failed, Plan, label
from study.questions import MODALITIES, ROLES
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
                cells = [scores[role, "image_text"], blind[role], scores[role, "text"]]
                rows.append([label(yardstick), role, *cells])
    table(
        "What was learned: accuracy of classification", ["model", "people", "image", "blind (grey image)", "text"], rows
    )
    taught = (
        "keeps their text and never saw their pictures" if plan.study.goal == "visual" else "was taught nothing of them"
    )
    console.print(f"goal {plan.study.goal}: the reference {taught}")
    if failed:
        raise Failed("learning did not pass the gate, so nothing is unlearned: " + "; ".join(failed))


def _accuracies(folder: Folder, key: str) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    rows = pd.concat([read_rows(folder.rows(key, half)) for half in ("select", "report")])
    choices = rows[rows["task"] == "classification"]
    blind = read_rows(folder.rows(key, "blind"))
    groups = choices.groupby(["role", "modality"])["score"].mean()
    return (
        {(str(role), str(modality)): float(groups[role, modality]) for role, modality in groups.index},
        {str(role): float(score) for role, score in blind.groupby("role")["score"].mean().items()},
    )


def _shortfalls(
    plan: Plan, yardstick: Trial, scores: Mapping[tuple[str, str], float], blind: Mapping[str, float]
) -> list[str]:
    gate = plan.study.gate
    if yardstick.start.kind == "reference":
        options = {len(q.options) for q in plan.benchmark.split(yardstick.ratio).questions if q.options}
        most = max(blind["forget"], 1 / min(options)) + gate.blind
        seen = scores["forget", "image_text"]
        return [f"{seen:.3f} on forget images, more than {most:.3f} (blind level + {gate.blind:g})"] * (seen > most)
    wanted = {(role, modality): gate.known for role in ("forget", "retain", "real") for modality in MODALITIES}
    wanted["test", "image_text"] = gate.test
    return [
        f"{scores[group]:.3f} on {' '.join(group)}, less than {least:g}"
        for group, least in wanted.items()
        if scores[group] < least
    ]
