"""cluster.local.yaml, for real: `ray up`, a study that loses a host, `ray down`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from study.core.layout import StudyFolder
from tests.cluster.hosts import played
from tests.cluster.ray_up import TRIALS, is_whole


@pytest.mark.slow
@pytest.mark.combinations
@pytest.mark.skipif("RAY_UP" not in os.environ, reason="makes hosts on this machine for minutes: RAY_UP=1 runs it")
def test_a_study_on_machines_of_ones_own_loses_one_and_nothing_with_it(tmp_path: Path) -> None:
    played("tests.cluster.ray_up", tmp_path)
    is_whole(StudyFolder(tmp_path / "shared" / "runs" / "mine"), TRIALS)
