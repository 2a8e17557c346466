"""Winners on a device that is too small for one of their jobs: what is then their result, and what stays open."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.attacks.relearning import Relearning
from study.core.files import write_json
from study.core.layout import StudyFolder, record_beside
from study.core.records import TrialRecord, TrialState, existing
from study.data.official_protocol import VERSION
from study.experiment.attack import attack_state
from study.experiment.records import keep_record
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.stages import winners
from study.stages.winners import _too_small, score_by_official_protocol
from study.training.schedule import Schedule

WINNER = Trial(
    Learned("vanilla", "base", "benchmark", None, None, Schedule(), ("llm",), 0), GradientAscent(), "visual", 10, 1
)
ATTACK = Relearning()


@pytest.mark.parametrize(
    ("ended", "scored", "recorded", "state", "attacked"),
    [
        (False, False, True, "failed", "unfinished"),
        (True, False, False, "complete", "unfinished"),
        (True, True, True, "complete", "failed"),
    ],
    ids=["the trial itself", "its scores", "the attack on it"],
)
def test_what_is_too_large_is_the_result_of_what_was_to_be_done(
    ended: bool, scored: bool, recorded: bool, state: TrialState, attacked: str, tmp_path: Path
) -> None:
    folder = StudyFolder(tmp_path)
    if ended:
        keep_record(folder, WINNER, "complete", "", cost={})
    if scored:
        folder.rows(WINNER.key, "report").parent.mkdir(parents=True)
        folder.rows(WINNER.key, "report").touch()
    assert _too_small(folder, WINNER, ATTACK, "one row is too large") == recorded
    found = existing(TrialRecord, folder.record(WINNER.key))
    assert found is not None
    assert (found.state, found.failure) == (state, "out of memory (device)" if state == "failed" else "")
    assert attack_state(folder, WINNER, ATTACK) == attacked


@pytest.mark.parametrize(
    ("record", "again"),
    [({"protocol": VERSION}, 0), ({"protocol": VERSION - 1}, 1), ({"images": 3}, 1), (None, 1)],
    ids=["this version", "another", "none, as earlier versions wrote it", "killed before it was written"],
)
def test_what_another_version_scored_officially_is_scored_again(
    record: dict[str, int] | None, again: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, jobs = StudyFolder(tmp_path), list[Any]()
    keep_record(folder, WINNER, "complete", "", cost={})
    rows = folder.rows(WINNER.key, "released")
    rows.parent.mkdir(parents=True)
    rows.touch()
    if record is not None:
        write_json(record_beside(rows), record)

    def run_jobs(stage: str, found: list[Any], study: object) -> dict[str, str]:
        jobs.extend(found)
        return {}

    monkeypatch.setattr(winners, "run_jobs", run_jobs)
    plan: Any = SimpleNamespace(folder=folder, study=SimpleNamespace(forget_ratios=(), released=True))
    assert score_by_official_protocol(plan, SimpleNamespace(), [WINNER]) == []  # type: ignore[arg-type]
    assert len(jobs) == again
