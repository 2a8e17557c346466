"""The gate: planted scores, known verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from study import gate
from study.contracts import Trial
from study.plan import Failed, Plan
from study.presets import PRESETS, Gate, plugin
from study.questions import Benchmark, Role
from study.store import ROW_COLUMNS, write_rows

STUDY = dataclasses.replace(PRESETS["smoke"][1], forget_ratios=(15,), gate=Gate())
VANILLA = {"forget": 1.0, "test": 0.9, "retain": 1.0, "real": 1.0, "text": 1.0, "blind": 0.25}
REFERENCE = {"forget": 0.3, "test": 0.3, "retain": 1.0, "real": 1.0, "text": 1.0, "blind": 0.2}


@pytest.fixture
def plan(tmp_path: Path, benchmark: Benchmark) -> Plan:
    study = dataclasses.replace(STUDY, study_dir=tmp_path)
    return Plan(study, plugin("models", study.model), plugin("benchmarks", study.benchmark), benchmark)


def planted(plan: Plan, trial: Trial, accuracies: Mapping[str, float]) -> None:
    """Rows of 100 questions a group of which the given share is right."""

    def group(role: Role, modality: str, half: str, share: float) -> list[dict[str, object]]:
        row: dict[str, object] = dict.fromkeys(ROW_COLUMNS, "")
        row |= {"role": role, "modality": modality, "task": "classification"}
        row |= {"half": half, "probability": 0.5, "step": 0, "seen": False}
        return [row | {"question": f"{i}", "score": float(i < 100 * share)} for i in range(100)]

    for name in ("select", "report"):
        rows = [
            row
            for role in ("forget", "test", "retain", "real")
            for modality in ("image_text", "text")
            for row in group(role, modality, name, accuracies[role if modality == "image_text" else "text"])
        ]
        write_rows(plan.folder.rows(trial.key, name), pd.DataFrame(rows))
    blind = [
        row
        for role in ("forget", "test", "retain", "real")
        for row in group(role, "image_text", "select", accuracies["blind"])
    ]
    write_rows(plan.folder.rows(trial.key, "blind"), pd.DataFrame(blind))


def checked(plan: Plan, vanilla: Mapping[str, float], reference: Mapping[str, float]) -> None:
    for trial, accuracies in zip(plan.yardsticks(15), (vanilla, reference), strict=True):
        planted(plan, trial, accuracies)
    gate.check(plan)


def test_what_was_learned_passes(plan: Plan) -> None:
    checked(plan, VANILLA, REFERENCE)


@pytest.mark.parametrize(
    ("vanilla", "reference", "said"),
    [
        ({"forget": 0.89}, {}, "vanilla 15 %: 0.890 on forget image_text, less than 0.9"),
        ({"retain": 0.5}, {}, "0.500 on retain image_text"),
        ({"real": 0.5}, {}, "0.500 on real image_text"),
        ({"text": 0.8}, {}, "0.800 on forget text"),
        ({"test": 0.79}, {}, "0.790 on test image_text, less than 0.8"),
        ({}, {"forget": 0.46}, "reference 15 %: 0.460 on forget images, more than 0.450"),
        ({}, {"forget": 0.61, "blind": 0.4}, "more than 0.600 (blind level + 0.2)"),
    ],
)
def test_too_little_is_refused_with_the_numbers(
    plan: Plan, vanilla: dict[str, float], reference: dict[str, float], said: str
) -> None:
    with pytest.raises(Failed) as refused:
        checked(plan, VANILLA | vanilla, REFERENCE | reference)
    assert said in str(refused.value)


def test_the_blind_level_raises_what_the_reference_may_reach(plan: Plan) -> None:
    checked(plan, VANILLA, REFERENCE | {"forget": 0.5, "blind": 0.4})
