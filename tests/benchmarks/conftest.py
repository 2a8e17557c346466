"""Datasets that several modules read and break."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.benchmarks._shared.defects import strict_data
from study.benchmarks.synthetic import Synthetic


@pytest.fixture
def strict() -> Iterator[None]:
    """What the authors' loaders pass over is an error too; `test_tolerance.py` has what happens else."""
    with strict_data():
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound dataset that tests may read only, in the layout of MLLMU-Bench unless a module has its own."""
    folder = tmp_path_factory.mktemp("whole")
    Synthetic(people=20, celebrities=8, attributes=2, views=1, strangers=2, size=16)(folder)
    (home,) = folder.iterdir()
    return home


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "data")
