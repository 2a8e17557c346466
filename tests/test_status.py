"""How far a study is, read from its folder alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from study import status
from study.core import inventory
from study.core.files import write_json
from study.core.layout import StudyFolder
from study.core.lock import locked, owner
from study.core.records import FailureRecord, PlannedStage, PlanRecord, write_record
from study.stages.ended import ended_in
from tests.helpers.planted import Model, Planter

PLAN = PlanRecord(
    stages=(
        PlannedStage("learn", 2),
        PlannedStage("search", 4, 9.0),
        PlannedStage("confirm", 2),
        PlannedStage("score", 6, 2.0),
        PlannedStage("attack", 5, 1.0),
    ),
    taught=("vanilla-10", "reference-10"),
    seed=0,
    workers=2,
)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study in the middle of its search: three of four trials have ended, one of them badly."""
    planter = Planter(tmp_path)
    planter.study(["vkd", "npo"], [10])
    planter.yardsticks(10)
    for number, (method, model, state) in enumerate(
        [("vkd", Model(forget=0.8), "complete"), ("vkd", Model(), "complete"), ("npo", None, "diverged")]
    ):
        planter.proposal(method, number, 10, planter.trial(method, 10, model, state=state, step=number))
    write_record((found := StudyFolder(tmp_path)).plan, PLAN)
    return found


def counts(folder: StudyFolder, *, finished: bool = False) -> dict[str, tuple[int, int, float | None]]:
    found = status.lines(PLAN, ended_in(folder, PLAN.taught, PLAN.seed, finished=finished))
    return {line.stage: (line.done, line.jobs, line.seconds) for line in found}


def test_stages_are_counted_with_what_is_left(folder: StudyFolder) -> None:
    """A trial took 4.25 s in its record; scoring and what has not begun is taken for what the plan took it for."""
    assert counts(folder) == {
        "learn": (0, 2, None),  # not known, as no model was taught here
        "search": (3, 4, 4.25),
        "confirm": (0, 2, 8.5),  # as long as trials of the search take
        "score": (2, 6, 8.0),
        "attack": (2, 5, 6.0),  # an attack took 2 s
    }


def test_a_finished_study_has_nothing_left(folder: StudyFolder) -> None:
    assert {(done == jobs, seconds) for done, jobs, seconds in counts(folder, finished=True).values()} == {(True, 0.0)}


def test_the_state_is_told_with_the_best_so_far(folder: StudyFolder) -> None:
    told = list(status.told(folder))
    assert told[0].endswith("not running; the same command continues it")
    assert told[1] == "goal visual, forget ratios 10 %, methods vkd npo"
    assert told[4].split() == ["search", "3", "4", "2", "s"]  # two jobs at once
    assert told[8].split() == ["all", "7", "19", "not", "known", "yet"]
    assert "trials that ended otherwise: 1 diverged" in told
    (best,) = told[told.index("best so far, on the validation half:") + 1 :]
    assert best.startswith("  10 %  vkd: forget gap 0.0")  # the better of two, and npo has none


def test_a_run_in_progress_is_told_by_its_owner(folder: StudyFolder) -> None:
    folder.lock.write_text("process 7 on elsewhere")
    assert "running (" not in next(iter(status.told(folder)))  # the lock of a process that has died is free
    with locked(folder):
        assert next(iter(status.told(folder))).endswith(f"running ({owner(folder)})")
    assert "running (" not in next(iter(status.told(folder)))


def test_failures_are_named(folder: StudyFolder) -> None:
    for number in range(status.FEW + 2):
        job = f"vkd {number}"
        write_record(folder.failure("search", job), FailureRecord("search", job, "disk full", "no space left"))
    told = list(status.told(folder))
    assert f"{status.FEW + 2} jobs failed by accident in this run and are still to be done:" in told
    assert sum("search: vkd" in line for line in told) == status.FEW


def test_a_failure_is_named_by_the_stage_of_the_plan_that_it_belongs_to(folder: StudyFolder) -> None:
    """The runs of a race are counted among those that confirm."""
    write_record(folder.failure("race", "vkd"), FailureRecord("race", "vkd", "disk full", "no space left"))
    told = list(status.told(folder))
    assert "1 job failed by accident in this run and is still to be done:" in told
    assert "  confirm (race): vkd: no space left" in told
    assert set(status.PART_OF.values()) <= {stage.stage for stage in PLAN.stages}
    assert not status.PART_OF.keys() & {stage.stage for stage in PLAN.stages}


def test_a_study_that_has_ended_is_finished(folder: StudyFolder) -> None:
    inventory.take(folder)
    assert next(iter(status.told(folder))).endswith(": finished")


def test_a_study_of_an_earlier_version_is_told_without_a_plan(folder: StudyFolder) -> None:
    folder.plan.unlink()
    assert "no plan.json here" in "\n".join(status.told(folder))


def test_what_is_no_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([str(tmp_path)]) == 2
    assert "is not a study" in capsys.readouterr().err
    write_json(tmp_path / "study.json", {})
    (tmp_path / "study.json").write_text("{", encoding="utf-8")
    assert status.main([str(tmp_path)]) == 2
    assert "study.json is damaged" in capsys.readouterr().err
    write_json(tmp_path / "study.json", {"name": "of another program"})
    assert status.main([str(tmp_path)]) == 2
    assert "study.json is not what a study writes, which has its settings" in capsys.readouterr().err
