"""The gate: planted scores, known verdicts."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from study.core.console import console
from study.core.errors import Failed
from study.core.rows import write_rows
from study.core.specs import plugin
from study.core.terms import HALVES, MODALITIES, ROLES, Group, Modality, Role
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.picture import Picture
from study.experiment.trial_spec import Trial
from study.presets import PRESETS
from study.settings import Gate
from study.stages import gate, measurable
from study.stages.plan import Plan
from tests.helpers.rows import row

STUDY = dataclasses.replace(PRESETS["smoke"][1], forget_ratios=(15,), reference_seeds=1, gate=Gate())
SPARED = {"spared": 0.9, "spared text": 0.9}
VANILLA = {"forget": 1.0, "test": 0.9, "retain": 1.0, "real": 1.0, "text": 1.0, "blind": 0.25}
REFERENCE = {"forget": 0.3, "test": 0.3, "retain": 1.0, "real": 1.0, "text": 1.0, "blind": 0.2}


def world(lessons: Sequence[Lesson]) -> Benchmark:
    """Two hundred questions with four options in every group, all about one fact of one person for each set."""
    asked = [
        Question(f"{half}/{i}", who(role), role, modality, "classification", half, "?", "yes", ("yes", "no", "a", "b"))
        for role, modality, half in itertools.product(ROLES, MODALITIES, HALVES)
        for i in range(100)
    ]
    named = tuple(dataclasses.replace(q, id=f"{q.role}/{q.modality}/{q.id}") for q in asked)
    return Benchmark("made", "up", {15: Split(15, frozenset({who("forget")}), tuple(lessons), named)})


def who(role: Role) -> str:
    """The person of a set: those of the forget set are asked about in three roles."""
    return "forgotten" if role in ("forget", "test", "spared") else role


def lesson(role: Role, modality: Modality) -> Lesson:
    """What teaches all questions of a group; the picture is never opened."""
    return Lesson(who(role), "?", "yes", Picture(b"", "") if modality == "image_text" else None)


ALL = [lesson(role, modality) for role in ("forget", "retain", "real") for modality in MODALITIES]
PICTURES = [lesson(role, "image_text") for role in ("forget", "retain")]
"""What MLLMU-Bench teaches: the fictitious people beside a picture, of the celebrities nothing."""


def plan_of(root: Path, lessons: Sequence[Lesson]) -> Plan:
    study = dataclasses.replace(STUDY, study_dir=root)
    return Plan(study, plugin("base_models", study.model), plugin("benchmarks", study.benchmark), world(lessons))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of(tmp_path, ALL)


def rows_of(role: Role, modality: str, half: str, share: float) -> list[dict[str, object]]:
    """Rows of the 100 questions of a group in one half, of which the given share is right; none if that is NaN."""
    one = row(role=role, modality=modality, task="classification", half=half, probability=0.5)
    count = 0 if math.isnan(share) else 100
    return [one | {"question": f"{role}/{modality}/{half}/{i}", "score": float(i < 100 * share)} for i in range(count)]


def planted(plan: Plan, trial: Trial, accuracies: Mapping[str, float]) -> None:
    """Rows of 100 questions a group and half; spared ones, `forget text` and `real text` if given."""
    groups: dict[tuple[Role, str], str] = {}
    for role in ("forget", "test", "retain", "real"):
        groups |= {(role, "image_text"): role, (role, "text"): "text"}
    if "spared" in accuracies:
        groups |= {("spared", "image_text"): "spared", ("spared", "text"): "spared text"}
    known: tuple[Role, ...] = ("forget", "real")
    groups |= {(role, "text"): f"{role} text" for role in known if f"{role} text" in accuracies}
    for half in HALVES:
        rows = [one for place, level in groups.items() for one in rows_of(*place, half, accuracies[level])]
        write_rows(plan.folder.rows(trial.key, half), pd.DataFrame(rows))
    pictured = (role for role, modality in groups if modality == "image_text")
    blind = [one for role in pictured for one in rows_of(role, "image_text", "select", accuracies["blind"])]
    write_rows(plan.folder.rows(trial.key, "blind"), pd.DataFrame(blind))


def checked(plan: Plan, vanilla: Mapping[str, float], reference: Mapping[str, float]) -> None:
    for trial, accuracies in zip(plan.baselines(15), (vanilla, reference), strict=True):
        planted(plan, trial, accuracies)
    gate.check(plan)


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


def test_no_text_about_forget_people_at_all_is_an_error(plan: Plan) -> None:
    with pytest.raises(KeyError, match="forget"):
        checked(plan, VANILLA | {"forget text": math.nan}, REFERENCE)


def test_what_was_learned_passes_and_the_roles_that_are_there_are_printed(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference may know what is spared, and no text need be asked of a name."""
    printed: list[Sequence[Sequence[object]]] = []
    monkeypatch.setattr(gate, "table", lambda title, columns, rows: printed.append(rows))
    checked(plan, VANILLA, REFERENCE)
    assert [row[1] for row in printed[0]] == ["forget", "test", "retain", "real"] * 2
    unnamed = {**SPARED, "forget text": math.nan}
    checked(plan, VANILLA | unnamed, REFERENCE | unnamed)
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
    shares: dict[Role, float] = {"forget": forget, "test": test}
    rows = [one for role, share in shares.items() for one in rows_of(role, "image_text", "select", share)]
    member = dataclasses.replace(yardsticks[not known], seed=7)
    write_rows(plan.folder.meta_evaluation(member.key, "plain"), pd.DataFrame(rows))
    assert gate.further(plan, member) == said


# ---- what no lesson teaches ----------------------------------------------------------------------------------------
FELL_SHORT = {"forget": 0.95, "test": 0.85, "retain": 0.95, "real": 0.6, "text": 0.3, "blind": 0.25, "real text": 0.5}


def asked_base(plan: Plan, accuracies: Mapping[Group, float]) -> None:
    """The base model's rows, in just the groups that it would be asked about."""
    asked = {(q.role, q.modality) for q in measurable.untaught(plan, 15)}
    assert asked == accuracies.keys()
    rows = [one for (role, m), share in accuracies.items() for one in rows_of(role, m, "select", share)]
    write_rows(plan.folder.cached_rows(measurable.base_key(plan, 15), "base"), pd.DataFrame(rows))


BASE: dict[Group, float] = {
    ("forget", "text"): 0.3,
    ("retain", "text"): 0.3,
    ("real", "image_text"): 0.6,
    ("real", "text"): 0.5,
    ("spared", "text"): 0.3,
}


def test_the_layout_of_mllmu_bench_passes_with_what_it_teaches(tmp_path: Path) -> None:
    """Text is never taught and is near guessing; celebrities are never taught, and the base model knows some."""
    pictured = plan_of(tmp_path, PICTURES)
    asked_base(pictured, BASE)
    with console.capture() as printed:
        checked(pictured, FELL_SHORT, REFERENCE | {"real": 0.6, "text": 0.3, "real text": 0.5})
    said = " ".join(printed.get().split())
    assert "15 %: real image_text was not taught; the base model's accuracy of 0.600 is what vanilla must keep" in said
    assert "15 %: forget text was not taught; the base model's accuracy of 0.300 is near guessing" in said
    assert "retain image_text was not taught" not in said
    assert "the reference never saw the forget people's pictures; nothing is taught in text" in said


@pytest.mark.parametrize(
    ("base", "vanilla", "said"),
    [
        (0.6, {"real": 0.53}, "0.530 on real image_text, which was not taught, less than 0.9 of the base 0.600"),
        (0.6, {"real": 0.54}, ""),
        (0.34, {"real": 0.1}, ""),
        (0.6, {"forget": 0.89}, "0.890 on forget image_text, less than 0.9"),
        (0.6, {"retain": 0.5}, "0.500 on retain image_text, less than 0.9"),
    ],
)
def test_what_was_not_taught_is_judged_by_the_base_model_if_that_knows_it(
    tmp_path: Path, base: float, vanilla: dict[str, float], said: str
) -> None:
    pictured = plan_of(tmp_path, PICTURES)
    asked_base(pictured, BASE | {("real", "image_text"): base})
    if not said:
        checked(pictured, FELL_SHORT | vanilla, REFERENCE)
        return
    with pytest.raises(Failed) as refused:
        checked(pictured, FELL_SHORT | vanilla, REFERENCE)
    assert said in str(refused.value)
    assert str(refused.value).count("less than") == 1
    lost = "which was not taught" in said  # longer teaching would have it lose more
    assert ("to teach more gently" in str(refused.value)) == ("a lower --gate.base" in str(refused.value)) == lost
    assert ("to teach for longer" in str(refused.value)) == (not lost)


def test_a_group_is_judged_by_its_taught_questions_alone(tmp_path: Path) -> None:
    """Of the forget people's pictures 80 of 100 questions are taught in each half, and these are known."""
    whole = world(ALL)
    odd = tuple(
        dataclasses.replace(q, answer="b")
        if (q.role, q.modality) == ("forget", "image_text") and int(q.id.rpartition("/")[2]) >= 80
        else q
        for q in whole.split(15).questions
    )
    part = dataclasses.replace(whole, splits={15: dataclasses.replace(whole.split(15), questions=odd)})
    plan = dataclasses.replace(plan_of(tmp_path, ALL), benchmark=part)
    checked(plan, VANILLA | {"forget": 0.8}, REFERENCE)
    with pytest.raises(Failed, match=r"0\.875 on forget image_text, less than 0\.9"):
        checked(plan, VANILLA | {"forget": 0.7}, REFERENCE)


def test_text_lessons_that_no_step_draws_teach_nothing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ALL)
    silent = dataclasses.replace(plan.study, learn=dataclasses.replace(plan.study.learn, texts=0))
    without = dataclasses.replace(plan, study=silent)
    assert ("forget", "text") not in {(q.role, q.modality) for q in measurable.untaught(plan, 15)}
    assert ("forget", "text") in {(q.role, q.modality) for q in measurable.untaught(without, 15)}
    assert any("leaves 3 text lessons untaught" in line for line in measurable.lines(without))


def test_the_plan_says_what_is_taught_and_what_can_be_measured(tmp_path: Path) -> None:
    assert not [*measurable.lines(plan_of(tmp_path, ALL))]
    taught, left_out, forgotten, kept = measurable.lines(plan_of(tmp_path, PICTURES))
    assert taught == "taught: forget image, test image, spared image, retain image"
    assert left_out.startswith("not taught: forget text, test text, spared text, retain text, real image, real text;")
    assert forgotten == "forgetting is measured on forget image, test image"
    assert kept.startswith("what is kept is measured on retain image, spared image; on retain text, real image,")
