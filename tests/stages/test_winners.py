"""Winners on a device that is too small for one of their jobs: what is then their result, and what stays open."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.attacks.relearning import Relearning
from study.core.layout import StudyFolder
from study.core.records import TrialRecord, TrialState, existing
from study.experiment.attack import attack_state
from study.experiment.records import keep_record
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.stages.winners import _too_small
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
