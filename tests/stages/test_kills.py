"""Killed at random instants again and again, a study ends in exactly what an undisturbed one ends in."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from study.core.files import read_json
from study.core.layout import StudyFolder
from study.presets import PRESETS
from study.settings import Study
from study.stages import pipeline
from tests.helpers.in_process import without_ray
from tests.helpers.processes import forked
from tests.helpers.studies import proposals, rows

pytestmark = pytest.mark.slow
KILLS = 20


def study_in(root: Path) -> Study:
    """With a search, further seeds of a winner, and attacks: all that writes results."""
    smoke = PRESETS["smoke"][1]
    return dataclasses.replace(
        smoke, study_dir=root, methods=("gradient_ascent",), forget_ratios=(10,), trials=2, reference_seeds=1,
        confirm_seeds=1, metric_check=False,
    )  # fmt: skip


def run(root: Path) -> None:
    """In a process of its own, which has imported everything and remembers nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with without_ray():
        assert pipeline.run(study_in(root)) == 0


def run_for(root: Path, seconds: float | None = None) -> tuple[float, int]:
    """Run a study, killed after so many seconds; how long it ran, and its exit status."""
    process = forked().Process(target=run, args=(root,))  # type: ignore[attr-defined]
    began = time.monotonic()
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return time.monotonic() - began, process.exitcode


def ended(folder: StudyFolder) -> Mapping[Path, int]:
    """When the record of each trial and learned model that has ended was written."""
    return {path: path.stat().st_mtime_ns for path in (*folder.trial_records(), *folder.learned_records())}


def whole(root: Path) -> None:
    """Every file under its own name can be read."""
    for path in root.rglob("*"):
        if path.name.startswith(".") or any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        if path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".parquet":
            pd.read_parquet(path)


def test_a_study_that_is_killed_twenty_times_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    undisturbed, folder = tmp_path / "undisturbed", StudyFolder(tmp_path / "killed")
    taken, status = run_for(undisturbed)
    assert status == 0
    draw, before, killed = random.Random(0), dict[Path, int](), 0
    for _ in range(KILLS):
        _, status = run_for(folder.root, draw.uniform(0, taken / 4))
        killed += status == -signal.SIGKILL
        whole(folder.root)
        now = ended(folder)
        assert before.items() <= now.items()  # what has ended is neither lost nor done again
        before = dict(now)
    assert killed > KILLS // 4, "the study was over before it could be killed"
    _, status = run_for(folder.root)
    assert status == 0
    assert before.items() <= ended(folder).items()
    assert folder.drafts() == []
    assert proposals(folder.root) == proposals(undisturbed)
    mine, theirs = rows(folder.root), rows(undisturbed)
    assert mine.keys() == theirs.keys()
    for name, frame in mine.items():
        pd.testing.assert_frame_equal(frame, theirs[name], obj=name)
