"""What the pages tell to type works: commands are parsed, those of the tutorials to the plan, and the notebook runs."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Never

import matplotlib
import pytest

from study import run
from study.benchmarks.synthetic import Synthetic
from study.command_line.commands import COMMANDS
from study.settings import Study
from study.stages.preflight import validate_study
from tests import ROOT
from tests.benchmarks.test_own import dataset, people
from tests.helpers.planted import MODELS, plant

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "docs" / "recipes").iterdir())]
TUTORIALS = [page for page in PAGES if page.parent.name == "tutorials"]

SMALL = "synthetic:people=20,celebrities=8,views=2,strangers=8"
"""A world that is read in less time than the default one."""


class Parsed(Exception):
    """The arguments of a command are what it takes."""


def typed(page: Path) -> Iterator[list[str]]:
    """The arguments of every `mus` on a page, lines that go on put together."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    if page.suffix == ".md":
        text = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    for line in text.splitlines():
        if found := re.search(r"(?:^|\s|/bin/)mus ((?:run|--|[a-z-]+ ?).*)", line.partition(" #")[0]):
            words = shlex.split(found[1].partition(" || ")[0])
            yield words[: words.index(">")] if ">" in words else words


WITH_COMMANDS = [page for page in PAGES if any(typed(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_are_what_mus_takes(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, arguments: Any = None, namespace: Any = None) -> Never:
        real(parser, arguments, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    for words in typed(page):
        name, *rest = words[2:] if words[0] == "--plugins" else words
        assert name in COMMANDS, words
        if name == "run":
            if not {"--config", "--help"} & {*rest}:
                assert isinstance(run.parse([word for word in rest if word != "--print-config"]), Study)
        elif COMMANDS[name][0]:
            with pytest.raises(Parsed):
                import_module(COMMANDS[name][0]).main(rest)


def test_tutorials_and_other_pages_have_commands() -> None:
    assert len(TUTORIALS) == 5
    assert len(WITH_COMMANDS) >= 15
    for page in TUTORIALS:
        assert len(list(typed(page))) > 3, page


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder with what the tutorials speak of, small: people, a model, a benchmark."""
    root = tmp_path_factory.mktemp("home")
    (root / "my-people").mkdir()
    dataset(root / "my-people", people(22))  # a tenth is set aside, and a quarter of the rest asks to be forgotten
    (root / "my-people" / "forget.txt").write_text("".join(f"p0{i}\n" for i in range(5)), encoding="utf-8")
    shutil.copytree(tiny_folder, root / "my-vlm")
    shutil.copytree(tiny_folder, root / "my-fine-tune")
    Synthetic(people=20, celebrities=8, views=2, strangers=4)(root / "made")
    next((root / "made").iterdir()).rename(root / "MLLMU-Bench")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda path: path.stem)
def test_the_runs_of_a_tutorial_can_be_planned(page: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as they need nothing that an earlier run would leave, and no plug-in, which has a test of its own."""
    monkeypatch.chdir(home)
    planned = 0
    for words in {tuple(words): None for words in typed(page)}:
        if words[0] == "run" and not {"--config", "--plugins", "--warm-start", "--print-config"} & {*words}:
            said = " ".join(words[1:]).replace("/models/", f"{home}/").replace("/data/", f"{home}/")
            said += "" if "--benchmark" in words else f" --benchmark {SMALL}"
            validate_study(run.parse(said.split()).resolved(), home / "data")
            planned += 1
    assert planned or page.stem == "new-method"


@pytest.mark.parametrize("script", sorted((ROOT / "docs" / "recipes").iterdir()), ids=lambda path: path.name)
def test_a_script_for_slurm_is_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert list(typed(script))


def test_the_image_holds_the_locked_packages_and_the_command() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied == ["requirements.lock", "."]
    assert all((ROOT / name).exists() for name in copied)
    assert 'ENTRYPOINT ["mus"]' in lines
    version = re.search(r"^FROM python:3\.(\d+)-slim$", "\n".join(lines), re.MULTILINE)
    assert version is not None
    assert int(version[1]) >= 11


@pytest.mark.slow
def test_the_notebook_reads_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((ROOT / "docs" / "read-a-study.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    matplotlib.use("agg")
    plant(tmp_path / "runs" / "tiny", {"perfect": MODELS["perfect"], "hiding": MODELS["hiding"]}, ratios=(10,))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert not names["rows"].empty
    assert set(names["winners"]["method"]) <= set(names["study"].methods)
