"""A tiny untrained model, a small benchmark and a smoke study, shared by the tests of a session."""

import gc
import os
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from study.base_models.tiny import Tiny
from study.benchmarks.synthetic import Synthetic
from study.data.benchmark import Benchmark
from study.model.vlm import VLM
from tests.helpers.cases import cases_of
from tests.helpers.families import FAMILIES, family_folder
from tests.helpers.small import fresh
from tests.helpers.studies import Whole, run

TWO = ("llava", "qwen2_5_vl")
"""The families of `make check`."""
ROOMS_FOR_ALL = ("attacks", "engine", "methods")
"""What these do to another family than `TWO` repeats what they do to these and what other rooms show of the family."""
DEAREST_FIRST = (
    "attacks/test_disguises.py",
    "experiment/test_teams.py",
    "stages/test_pipeline.py",
    "attacks/test_planted_attacks.py",
    "engine/test_multi_node.py",
    "methods/test_methods.py",
    "test_rehearsal.py",
    "benchmarks/test_own_study.py",
    "engine/test_parallel.py",
    "stages/test_damage.py",
    "stages/test_brought.py",
    "stages/test_robust_search.py",
)
"""Files that take most of the time. A process takes a whole file, so these are taken before all others."""
HERE = Path(__file__).parent
torch.set_num_threads(1)  # the models are so small that threads only get in each other's way
settings.register_profile("study", deadline=None)  # a busy machine is no bug
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("study")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is about a further family and the cases of docs/reliability.md, and put the dearest files first.

    Processes that share the files among them then end at about the same time.
    """
    cases = cases_of()
    for item in items:
        for case in cases.get(item.nodeid.partition("[")[0], ()):
            item.add_marker(pytest.mark.case(case))
        given = getattr(item, "callspec", None)
        families = [name for name in given.params.values() if isinstance(name, str)] if given else []
        if any(name in FAMILIES and name not in TWO for name in families):
            item.add_marker("combinations" if item.path.parent.name in ROOMS_FOR_ALL else "further_families")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    dear = {HERE / name: place for place, name in enumerate(DEAREST_FIRST)}
    items.sort(key=lambda item: dear.get(item.path, len(dear) + (item.path not in slow)))


def pytest_collection_finish() -> None:
    """Spare the collector the libraries and the tests themselves: it looks through them after every trial."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Tiny(steps=0, width=32, layers=2)(tmp_path_factory.mktemp("models"))


@pytest.fixture
def tiny(tiny_folder: Path) -> VLM:
    return fresh(tiny_folder)


@pytest.fixture(scope="session")
def family_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random model of every family, by name; parametrise over `tests.helpers.families.FAMILIES`."""
    root = tmp_path_factory.mktemp("families")
    return {name: family_folder(name, root) for name in FAMILIES}


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return Synthetic(people=20, celebrities=8, views=2, strangers=8)(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where plans of studies find the benchmarks that are generated: each is written by the first that needs it."""
    return tmp_path_factory.mktemp("generated")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """One undisturbed smoke study for all processes that share the tests among them."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # each process has a folder of its own in it
    folder, printed = place / "whole" / "study", place / "whole.txt"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(place / "whole.lock"):
        if not printed.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed at it: it would be continued
            printed.write_text(run(folder, drawn=True), encoding="utf-8")
    return Whole(folder, printed.read_text(encoding="utf-8"))
