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
from study.settings import Study
from study.stages.manifest import settle
from study.stages.plan import Plan
from study.stages.preflight import validate_study
from tests import ROOT


def command(folder: Path, *settings: str, preset: str = "smoke") -> list[str]:
    return [sys.executable, str(ROOT / "study" / "run.py"), preset, "--study-dir", str(folder), *settings]


def run(folder: Path, *settings: str, status: int = 0, preset: str = "smoke") -> str:
    """Run a study to its end; returns what it printed."""
    done = subprocess.run(
        command(folder, *settings, preset=preset),
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
