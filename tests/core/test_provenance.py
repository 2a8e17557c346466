"""What computes a result is named: the code, its libraries, and the machine."""

import os
from pathlib import Path

import pytest

from study.core import provenance
from study.core.provenance import PACKAGES, cpu, revision, versions
from tests import ROOT


def test_the_processor_is_named_where_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PROCESSORS", tmp_path / "cpuinfo")
    assert cpu.__wrapped__()  # another system says it elsewhere
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Abacus 3: fast\n\nmodel name\t: Abacus 4\n")
    assert cpu.__wrapped__() == "Abacus 3: fast"


def test_a_revision_says_whether_files_differ_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(ROOT.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # such as a key that commits are signed with
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "-m", "one")
    assert revision.__wrapped__() == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("two")
    assert revision.__wrapped__() == git("rev-parse", "HEAD") + "+"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision.__wrapped__() == ""


def test_versions_are_those_of_all_libraries_that_matter() -> None:
    assert set(versions()) == {"python", *PACKAGES}
