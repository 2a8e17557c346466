"""The recipes for Slurm, for real: the time of a job ends, a job on two nodes is cancelled, both studies go on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from study.core.files import read_json
from study.core.layout import StudyFolder
from tests import ROOT
from tests.cluster.hosts import ALONE, missing
from tests.cluster.ray_up import proposed
from tests.cluster.slurm import TRIALS

SLURM = ("sbatch", "slurmctld", "slurmd", "munged")


@pytest.mark.slow
@pytest.mark.combinations
@pytest.mark.skipif("SLURM" not in os.environ, reason="makes a Slurm on this machine for many minutes: SLURM=1 runs it")
def test_studies_go_on_when_their_time_ends_and_when_they_are_cancelled(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    if lacking := [tool for tool in SLURM if not shutil.which(tool)]:
        pytest.skip(f"not installed: {', '.join(lacking)} (Debian: slurmctld slurmd slurm-client munge)")
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.cluster.slurm", tmp_path], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("one", "several"):
        folder = StudyFolder(tmp_path / "shared" / "runs" / name)
        keys = proposed(folder)
        assert len(keys) == TRIALS
        assert "failed" not in {read_json(folder.record(key))["state"] for key in keys}
        assert (folder.root / "report" / "report.html").exists()
