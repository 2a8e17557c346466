"""Whole studies, run by the command that users run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from study.core.files import read_json, write_json
from study.core.hashing import Json
from study.core.layout import StudyFolder
from study.settings import Study
from study.stages.manifest import settle
from study.stages.plan import Plan
from study.stages.preflight import validate_study
from tests import ROOT

PROGRAM = str(ROOT / "study" / "run.py")
UNDRAWN = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.helpers.page import dots
with dots():
    runpy.run_path({PROGRAM!r}, run_name="__main__")
"""
"""The same program, with dots for the figures of its report."""


def command(folder: Path, *settings: str, preset: str = "smoke", drawn: bool = False) -> list[str]:
    program = [PROGRAM] if drawn else ["-c", UNDRAWN]
    return [sys.executable, *program, preset, "--study-dir", str(folder), *settings]


def run(folder: Path, *settings: str, status: int = 0, preset: str = "smoke", drawn: bool = False) -> str:
    """Run a study to its end; returns what it printed."""
    done = subprocess.run(
        command(folder, *settings, preset=preset, drawn=drawn),
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
        cwd=folder.parent,
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


def searching(study: Study, data: Path) -> Plan:
    """The plan of a study whose settings are fixed: its search has proposed something."""
    plan = validate_study(study, data)
    settle(plan)
    write_json(plan.folder.proposal("vkd", 0), {})
    return plan


@dataclass(frozen=True)
class Whole:
    """An undisturbed smoke study: its folder, which tests read and copy but leave as it is, and what it printed."""

    folder: Path
    printed: str

    def copied(self, folder: Path) -> Path:
        """The whole study in another folder, to be continued there."""
        return shutil.copytree(self.folder, folder)

    def begun(self, folder: Path) -> Path:
        """Another study, in which the same models have been learned and nothing else was done."""
        for part in ("data", "learned"):
            shutil.copytree(self.folder / part, folder / part)
        return folder

    def scored(self, folder: Path) -> StudyFolder:
        """Another study, in which the same models have been learned, scored and attacked, and nothing was searched."""
        there, here = StudyFolder(self.folder), StudyFolder(self.begun(folder))
        for path in there.trial_records():
            if read_json(path)["method"] == "none":
                shutil.copytree(path.parent, here.trial(path.parent.name))
        return here

    def of(self, *methods: str) -> Part:
        """What a study of some of its methods alone would have come to."""
        folder = StudyFolder(self.folder)
        mine = {key for key in trials(self.folder) if read_json(folder.record(key))["method"] in (*methods, "none")}
        return Part(
            {name: p for name, p in proposals(self.folder).items() if Path(name).parent.name in methods},
            mine,
            {name: table for name, table in rows(self.folder).items() if Path(name).parts[1] in mine},
        )


@dataclass(frozen=True)
class Part:
    """Proposals and rows by their files, and the keys of trials."""

    proposals: dict[str, Json]
    trials: set[str]
    rows: dict[str, pd.DataFrame]

    def is_all_of(self, folder: Path) -> None:
        """Fails unless a study has come to just this, to the last bit."""
        assert proposals(folder) == self.proposals
        assert trials(folder) == self.trials
        found = rows(folder)
        assert found.keys() == self.rows.keys()
        for name, table in found.items():
            pd.testing.assert_frame_equal(table, self.rows[name], obj=name)
