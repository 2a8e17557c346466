"""The gate: planted scores, known verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from study.core.errors import Failed
from study.core.rows import write_rows
from study.core.specs import plugin
from study.core.terms import Role
from study.data.benchmark import Benchmark
from study.experiment.trial_spec import Trial
from study.presets import PRESETS
from study.settings import Gate
from study.stages import gate
from study.stages.plan import Plan
from tests.helpers.rows import row

STUDY = dataclasses.replace(PRESETS["smoke"][1], forget_ratios=(15,), reference_seeds=1, gate=Gate())
SPARED = {"spared": 0.9, "spared text": 0.9}
VANILLA = {"forget": 1.0, "test": 0.9, "retain": 1.0, "real": 1.0, "text": 1.0, "blind": 0.25}
REFERENCE = {"forget": 0.3, "test": 0.3, "retain": 1.0, "real": 1.0, "text": 1.0, "blind": 0.2}


@pytest.fixture
def plan(tmp_path: Path, benchmark: Benchmark) -> Plan:
    study = dataclasses.replace(STUDY, study_dir=tmp_path)
    return Plan(study, plugin("base_models", study.model), plugin("benchmarks", study.benchmark), benchmark)


def planted(plan: Plan, trial: Trial, accuracies: Mapping[str, float]) -> None:
    """Rows of 100 questions a group of which the given share is right; spared ones and `forget text` if given."""
    groups: dict[tuple[Role, str], str] = {}
    for role in ("forget", "test", "retain", "real"):
        groups |= {(role, "image_text"): role, (role, "text"): "text"}
    if "spared" in accuracies:
        groups |= {("spared", "image_text"): "spared", ("spared", "text"): "spared text"}
    if "forget text" in accuracies:
        groups["forget", "text"] = "forget text"

    def group(role: Role, modality: str, half: str, share: float) -> list[dict[str, object]]:
        one = row(role=role, modality=modality, task="classification", half=half, probability=0.5)
        count = 0 if math.isnan(share) else 100
        return [one | {"question": f"{i}", "score": float(i < 100 * share)} for i in range(count)]

    for name in ("select", "report"):
        rows = [one for place, level in groups.items() for one in group(*place, name, accuracies[level])]
        write_rows(plan.folder.rows(trial.key, name), pd.DataFrame(rows))
    blind = [
        one
        for role, modality in groups
        if modality == "image_text"
        for one in group(role, modality, "select", accuracies["blind"])
    ]
    write_rows(plan.folder.rows(trial.key, "blind"), pd.DataFrame(blind))


def checked(plan: Plan, vanilla: Mapping[str, float], reference: Mapping[str, float]) -> None:
    for trial, accuracies in zip(plan.baselines(15), (vanilla, reference), strict=True):
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
        ({}, {"forget": 0.46}, "reference 15 % seed 0: 0.460 on forget images, more than 0.450"),
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


@pytest.mark.parametrize(
    ("spared", "said"),
    [
        ({"spared": 0.79}, "vanilla 15 %: 0.790 on spared image_text, less than 0.8"),
        ({"spared text": 0.5}, "vanilla 15 %: 0.500 on spared text, less than 0.8"),
    ],
)
def test_what_is_spared_must_be_known(plan: Plan, spared: dict[str, float], said: str) -> None:
    with pytest.raises(Failed) as refused:
        checked(plan, VANILLA | SPARED | spared, REFERENCE | SPARED)
    assert said in str(refused.value)
    assert str(refused.value).count("less than") == 1


def test_the_reference_may_know_what_is_spared_and_no_text_need_be_asked_of_a_name(plan: Plan) -> None:
    checked(plan, VANILLA | SPARED | {"forget text": math.nan}, REFERENCE | SPARED | {"forget text": math.nan})


def test_no_text_about_forget_people_at_all_is_an_error(plan: Plan) -> None:
    with pytest.raises(KeyError, match="forget"):
        checked(plan, VANILLA | {"forget text": math.nan}, REFERENCE)


def test_only_the_roles_that_are_there_are_printed(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[Sequence[Sequence[object]]] = []
    monkeypatch.setattr(gate, "table", lambda title, columns, rows: printed.append(rows))
    checked(plan, VANILLA, REFERENCE)
    assert [row[1] for row in printed[0]] == ["forget", "test", "retain", "real"] * 2
    checked(plan, VANILLA | SPARED | {"forget text": math.nan}, REFERENCE | SPARED)
    assert [row[1] for row in printed[1]] == ["forget", "test", "spared", "retain", "real"] * 2
    assert printed[1][0] == ["vanilla 15 %", "forget", 1.0, 0.25, "-"]


@pytest.mark.parametrize(("attributes", "hinted"), [((), False), (("residence",), True)])
def test_attributes_of_pictures_alone_are_explained(plan: Plan, attributes: tuple[str, ...], hinted: bool) -> None:
    """The reference names the person and knows the rest from text: no setting of learning can help that."""
    asked = dataclasses.replace(plan, study=dataclasses.replace(plan.study, forget_attributes=attributes))
    with pytest.raises(Failed) as refused:
        checked(asked, VANILLA, REFERENCE | {"forget": 0.9})
    assert ("ask for attributes under --goal full" in str(refused.value)) == hinted


@pytest.mark.parametrize(
    ("forget", "test", "known", "said"),
    [
        (0.9, 0.8, True, []),
        (0.89, 0.8, True, ["0.890 on forget image_text, less than 0.9"]),
        (1.0, 0.5, True, ["0.500 on test image_text, less than 0.8"]),
        (0.4, 0.4, False, []),
        (0.46, 0.4, False, ["0.460 on forget images, more than 0.450 (blind level + 0.2)"]),
    ],
)
def test_further_models_are_judged_by_what_they_were_asked(
    plan: Plan, forget: float, test: float, known: bool, said: list[str]
) -> None:
    """About the forget people alone, beside the blind level of the study's own reference."""
    yardsticks = plan.baselines(15)
    planted(plan, yardsticks[1], REFERENCE | {"blind": 0.25})
    rows = [
        row(question=f"{i}", role=role, modality="image_text", task="classification", score=float(i < 100 * share))
        for role, share in (("forget", forget), ("test", test))
        for i in range(100)
    ]
    member = dataclasses.replace(yardsticks[not known], seed=7)
    write_rows(plan.folder.meta_evaluation(member.key, "plain"), pd.DataFrame(rows))
    assert gate.further(plan, member) == said
