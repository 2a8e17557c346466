"""One whole study from nothing to its report: killed in the middle, continued, grown, and refused when it changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from study.core.files import read_json
from study.core.hashing import Json
from study.core.layout import StudyFolder
from tests import ROOT

METHODS = ("vkd", "gradient_ascent")
pytestmark = pytest.mark.slow


def command(folder: Path, *settings: str) -> list[str]:
    return [sys.executable, str(ROOT / "study" / "run.py"), "smoke", "--study-dir", str(folder), *settings]


def run(folder: Path, *settings: str, status: int = 0) -> str:
    done = subprocess.run(
        command(folder, *settings), capture_output=True, text=True, timeout=600, check=False, cwd=folder.parent
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert not done.stderr, done.stderr  # what libraries warn of is ours to hear of
    return done.stdout


def proposals(folder: Path) -> dict[str, Json]:
    return {str(path.relative_to(folder)): read_json(path) for path in sorted(folder.glob("search/*/*.json"))}


def trials(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("trials/*/trial.json")}


def rows(folder: Path) -> dict[str, pd.DataFrame]:
    found = [*folder.glob("trials/*/rows/*.parquet"), *folder.glob("trials/*/attacks/*.parquet")]
    return {str(path.relative_to(folder)): pd.read_parquet(path) for path in sorted(found)}


def times(folder: Path) -> dict[str, int]:
    """When each result was last written."""
    kept = [path for part in ("trials", "learned", "search", "data") for path in (folder / part).rglob("*")]
    return {str(path): path.stat().st_mtime_ns for path in kept if path.is_file()}


class Whole(NamedTuple):
    """An undisturbed study: its folder, what it printed, and what it held when it ended."""

    folder: Path
    printed: str
    proposals: dict[str, Json]
    trials: set[str]
    rows: dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole") / "study"
    return Whole(folder, run(folder), proposals(folder), trials(folder), rows(folder))


def test_a_study_runs_from_nothing_to_its_report(whole: Whole) -> None:
    folder, printed = whole.folder, whole.printed
    for stage in ("base", "learn", "score", "search", "confirm", "attack"):
        assert f"{stage}: done in" in printed
    assert "search: 8/8" in printed
    report = folder / "report" / "report.html"
    assert printed.splitlines()[-1] == f"Report: {report}"
    assert "<img" in report.read_text(encoding="utf-8")
    assert {path.suffix for path in (folder / "report" / "figures").iterdir()} == {".png", ".pdf"}
    assert {path.suffix for path in (folder / "report" / "tables").iterdir()} == {".csv", ".tex"}
    assert len(proposals(folder)) == 8
    for by_ratio in read_json(folder / "winners.json").values():
        for winner in by_ratio.values():
            assert [read_json(StudyFolder(folder).record(key))["seed"] for key in winner["trials"]] == [0, 1]
            assert all(StudyFolder(folder).rows(key, "report").exists() for key in winner["trials"])


def test_only_relative_paths_are_kept(whole: Whole) -> None:
    folder = whole.folder
    kept = [path for path in folder.rglob("*.json") if "ray" not in path.relative_to(folder).parts]
    assert kept
    for path in kept:
        assert str(folder) not in path.read_text(encoding="utf-8"), path


def test_again_runs_nothing_and_more_trials_run_only_the_difference(whole: Whole) -> None:
    folder = whole.folder
    before = times(folder)
    printed = run(folder)
    assert "done in" not in printed
    assert times(folder) == before
    printed = run(folder, "--trials", "5")
    assert "search: 2/2" in printed
    after = times(folder)
    assert {path: after[path] for path in before} == before
    assert proposals(folder).keys() - whole.proposals.keys() == {f"search/{m}/0004.json" for m in METHODS}


def test_another_configuration_is_refused_field_by_field(whole: Whole) -> None:
    folder = whole.folder
    before = times(folder)
    printed = run(folder, "--trials", "6", "--seed", "3", "--learn.steps", "9", status=2)
    assert "seed: 0 there, 3 asked" in printed
    assert "learn.steps: 4 there, 9 asked" in printed
    assert "trials" not in printed.split("other settings:")[1]
    assert times(folder) == before


def test_a_killed_study_continues_to_the_same_end(whole: Whole, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    victim = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        searched = None
        until = time.monotonic() + 300
        while not searched and time.monotonic() < until and victim.poll() is None:
            time.sleep(0.02)
            searched = [key for p in proposals(folder).values() if (key := p["trial"]) in trials(folder)]
        assert searched, "the search never finished a trial"
    finally:
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    finished = {key: StudyFolder(folder).record(key).stat().st_mtime_ns for key in trials(folder)}
    run(folder)
    assert {key: StudyFolder(folder).record(key).stat().st_mtime_ns for key in finished} == finished
    assert proposals(folder) == whole.proposals
    assert trials(folder) == whole.trials
    mine = rows(folder)
    assert mine.keys() == whole.rows.keys()
    for name, frame in mine.items():
        pd.testing.assert_frame_equal(frame, whole.rows[name])
