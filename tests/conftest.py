"""One tiny untrained model and one small benchmark, shared by the tests of a session."""

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from study.base_models.tiny import Tiny
from study.benchmarks.synthetic import Synthetic
from study.data.benchmark import Benchmark
from study.model.loading import load
from study.model.vlm import VLM
from tests.helpers.families import FAMILIES, family_folder

torch.set_num_threads(1)  # the models are so small that threads only get in each other's way
settings.register_profile("study", deadline=None)  # a busy machine is no bug
settings.load_profile("study")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: processes that share the files among them then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Tiny(steps=0, width=32, layers=2)(tmp_path_factory.mktemp("models"))


@pytest.fixture
def tiny(tiny_folder: Path) -> VLM:
    return load(tiny_folder)


@pytest.fixture(scope="session")
def family_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random model of every family, by name; parametrise over `tests.helpers.families.FAMILIES`."""
    root = tmp_path_factory.mktemp("families")
    return {name: family_folder(name, root) for name in FAMILIES}


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return Synthetic(people=20, celebrities=8, views=2, strangers=8)(tmp_path_factory.mktemp("benchmarks"))
