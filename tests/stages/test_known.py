"""Only what vanilla knows counts: what is asked, what is kept, when that is too little, and how to go on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from study.core.console import console
from study.core.errors import Failed
from study.core.files import read_json, write_json
from study.core.rows import read_rows, write_rows
from study.core.terms import HALVES, Half
from study.data.benchmark import Question
from study.experiment.context import StudyContext
from study.metrics.objectives import objectives
from study.presets import PRESETS
from study.settings import Gate
from study.stages import gate
from study.stages.known import Told, asked_rows, known_at, measured
from study.stages.plan import Plan
from study.stages.preflight import validate_study
from tests.helpers.rows import row

FOUR = "synthetic:people=40,celebrities=8,views=1,strangers=2"
STUDY = dataclasses.replace(
    PRESETS["smoke"][1], forget_ratios=(20,), reference_seeds=2, gate=Gate(), benchmark=FOUR, measure="known"
)
GONE = ("forget", "test")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def plan(tmp_path: Path, data: Path) -> Plan:
    return validate_study(dataclasses.replace(STUDY, study_dir=tmp_path / "study"), data)


def people(plan: Plan) -> list[str]:
    return sorted(plan.benchmark.split(20).forget_people)


def rows_of(plan: Plan, half: Half, knows: set[str], level: float = 0.95) -> pd.DataFrame:
    """What a model that knows some of the forget people in pictures, and everybody else, says to all questions."""

    def chance(q: Question) -> float:
        there = q.role not in GONE or q.modality == "text" or q.person in knows
        return level if there else 0.2

    return pd.DataFrame([
        row(question=q.id, person=q.person, role=q.role, modality=q.modality, task=q.task, half=half, score=chance(q),
            probability=chance(q) if q.options else float("nan"), likelihood=chance(q))
        for q in plan.benchmark.split(20).questions if q.half == half
    ])  # fmt: skip


def plant(plan: Plan, known: int) -> None:
    """Vanilla knows so many of the eight forget people; the references nobody."""
    for trial in plan.baselines(20):
        knows = set(people(plan)[:known]) if trial.start.kind == "vanilla" else set()
        for half in HALVES:
            write_rows(plan.folder.rows(trial.key, half), rows_of(plan, half, knows))
        blind = rows_of(plan, "select", set()).query("modality == 'image_text' and task == 'classification'")
        write_rows(plan.folder.rows(trial.key, "blind"), blind)


def context_of(plan: Plan, data: Path) -> StudyContext:
    return StudyContext(plan.root, plan.source, data)


def asked(rows: pd.DataFrame) -> set[str]:
    return set(rows.loc[rows["role"].isin(GONE) & (rows["modality"] == "image_text"), "person"])


def known_of(plan: Plan) -> dict[int, Told]:
    return {ratio: known(plan, ratio) for ratio in plan.study.forget_ratios}


def known(plan: Plan, ratio: int) -> Told:
    return known_at(plan, ratio, [asked_rows(plan.folder, t.key) for t in plan.baselines(ratio)])


@pytest.mark.slow
def test_only_what_vanilla_knows_is_asked_and_kept(plan: Plan, data: Path) -> None:
    plant(plan, 7)
    before = {trial: read_rows(plan.folder.rows(trial.key, "select")) for trial in plan.baselines(20)}
    with console.capture() as printed:
        gate.check(plan)  # seven of eight, which is not 0.9
    assert "20 %: vanilla knows 7 of 8 forget people and" in " ".join(printed.get().split())
    split = measured(plan, context_of(plan, data), known_of(plan)).benchmark.split(20)
    unknown = people(plan)[7]
    there = {q.person for q in split.questions if q.role in GONE and q.modality == "image_text"}
    assert there == set(people(plan)[:7])
    assert {q.person for q in split.questions if q.role == "forget" and q.modality == "text"} == set(people(plan))
    for trial, rows in before.items():
        found = read_rows(plan.folder.rows(trial.key, "select"))
        assert asked(found) == set(people(plan)[:7])
        assert set(rows["question"]) - set(found["question"]) == {
            q.id
            for q in plan.benchmark.split(20).questions
            if (q.person, q.modality, q.half) == (unknown, "image_text", "select")
        }
        pd.testing.assert_frame_equal(read_rows(plan.folder.rows(trial.key, "whole_select")), rows)
    vanilla, *references = (read_rows(plan.folder.rows(t.key, "select")) for t in plan.baselines(20))
    assert objectives(vanilla, vanilla, references, "visual") == pytest.approx({"forget_gap": 0.75, "utility": 1.0})
    noted = read_json(plan.folder.unknown)["20"]
    assert (noted["people"], noted["of_people"]) == (7, 8)


@pytest.mark.slow
def test_until_the_search_begins_all_can_count_again(plan: Plan, data: Path) -> None:
    plant(plan, 7)
    whole = {t: read_rows(plan.folder.rows(t.key, half)) for t in plan.baselines(20) for half in HALVES[:1]}
    measured(plan, context_of(plan, data), known_of(plan))
    again = known(plan, 20)
    every = dataclasses.replace(plan, study=dataclasses.replace(plan.study, measure="all"))
    assert known(every, 20) == again  # chosen by the rows of all questions, whatever was left of them
    assert not measured(every, context_of(plan, data), known_of(every)).only_known
    assert read_json(plan.folder.unknown) == {}
    for trial, rows in whole.items():
        pd.testing.assert_frame_equal(read_rows(plan.folder.rows(trial.key, "select")), rows)


def test_a_search_that_has_begun_keeps_its_questions(plan: Plan, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(plan, 7)
    measured(plan, context_of(plan, data), known_of(plan))
    noted = plan.folder.unknown.read_bytes()
    write_json(plan.folder.proposal("vkd", 0), {})
    monkeypatch.setattr("study.stages.known.unknown", lambda *_: frozenset())  # another version finds that all count
    plant(plan, 7)
    assert measured(plan, context_of(plan, data), known_of(plan)).only_known
    assert plan.folder.unknown.read_bytes() == noted
    for trial in plan.baselines(20):
        assert asked(read_rows(plan.folder.rows(trial.key, "select"))) == set(people(plan)[:7])


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (5, "20 %: vanilla knows 5 of 8 forget people and .* nothing can be told of so few"),
        (0, "20 %: of forget image_text, test image_text nothing is known in one of the halves"),
    ],
)
def test_too_few_end_the_study_with_the_command_that_can_help(plan: Plan, known: int, said: str) -> None:
    plant(plan, known)
    with pytest.raises(Failed, match=f"{said}.*Run the same command again with --learn.steps 8, to teach for longer$"):
        gate.check(plan)


@pytest.mark.slow
def test_what_falls_short_of_all_may_be_measured_on_what_is_known(plan: Plan) -> None:
    all_count = dataclasses.replace(plan, study=dataclasses.replace(plan.study, measure="all"))
    plant(plan, 6)
    with pytest.raises(Failed, match=r"again with --measure known, by which .*, or with --learn\.steps 8, to teach"):
        gate.check(all_count)
    plant(plan, 5)
    with pytest.raises(Failed) as refused:
        gate.check(all_count)
    assert "--measure known" not in str(refused.value)
    plant(plan, 8)
    gate.check(all_count)


def test_a_further_model_is_not_judged_by_what_need_not_be_known(plan: Plan) -> None:
    plant(plan, 7)
    member = dataclasses.replace(plan.baselines(20)[0], seed=5)
    write_rows(plan.folder.meta_evaluation(member.key, "plain"), rows_of(plan, "select", set(people(plan)[:4])))
    assert gate.further(plan, member) == []
    all_count = dataclasses.replace(plan, study=dataclasses.replace(plan.study, measure="all"))
    assert len(gate.further(all_count, member)) == 2
