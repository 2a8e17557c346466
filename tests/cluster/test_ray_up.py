"""cluster.local.yaml, for real: `ray up`, a study that loses a host, `ray down`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from study.core.files import read_json
from study.core.layout import StudyFolder
from tests import ROOT
from tests.cluster.hosts import ALONE, missing
from tests.cluster.ray_up import TRIALS, proposed


@pytest.mark.slow
@pytest.mark.combinations
@pytest.mark.skipif("RAY_UP" not in os.environ, reason="makes hosts on this machine for minutes: RAY_UP=1 runs it")
def test_a_study_on_machines_of_ones_own_loses_one_and_nothing_with_it(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.cluster.ray_up", tmp_path], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = StudyFolder(tmp_path / "shared" / "runs" / "mine")
    keys = proposed(folder)
    assert len(keys) == TRIALS
    assert "failed" not in {read_json(folder.record(key))["state"] for key in keys}
    assert (folder.root / "report" / "report.html").exists()
