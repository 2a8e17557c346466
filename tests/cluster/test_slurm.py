"""The recipes for Slurm, for real: the time of a job ends, a job on two nodes is cancelled, both studies go on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from study.core.layout import StudyFolder
from tests.cluster.hosts import played
from tests.cluster.ray_up import is_whole
from tests.cluster.slurm import TRIALS

SLURM = ("sbatch", "slurmctld", "slurmd", "munged")


@pytest.mark.slow
@pytest.mark.combinations
@pytest.mark.skipif("SLURM" not in os.environ, reason="makes a Slurm on this machine for many minutes: SLURM=1 runs it")
def test_studies_go_on_when_their_time_ends_and_when_they_are_cancelled(tmp_path: Path) -> None:
    if lacking := [tool for tool in SLURM if not shutil.which(tool)]:
        pytest.skip(f"not installed: {', '.join(lacking)} (Debian: slurmctld slurmd slurm-client munge)")
    played("tests.cluster.slurm", tmp_path)
    for name in ("one", "several"):
        is_whole(StudyFolder(tmp_path / "shared" / "runs" / name), TRIALS)
