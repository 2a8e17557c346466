"""What holds for every file: nothing of the machine it was written on, and every module says what it is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

MADE = re.compile(r"\.git|\.venv|runs|dist|build|__pycache__|\.\w+_cache|\.hypothesis|.*\.egg-info")

HOME = re.compile(r"(?<![\w.*~})-])/(?:root|Users/\w+|home/\w+)(?:/|\b)(?!\.py)")


def written(folder: Path = ROOT) -> Iterator[Path]:
    """Every file that somebody wrote."""
    for path in sorted(folder.iterdir()):
        if MADE.fullmatch(path.name) or path.is_symlink():
            continue
        if path.is_dir():
            yield from written(path)
        else:
            yield path


def homes(text: str) -> list[str]:
    return [f"line {number}" for number, line in enumerate(text.splitlines(), 1) if HOME.search(line)]


def undocumented(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return bool(tree.body) and not ast.get_docstring(tree)


def test_no_file_names_the_home_of_whoever_wrote_it() -> None:
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8", errors="ignore") for path in written()}
    found = {str(path): homes(text) for path, text in texts.items() if path.suffix != ".png"}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("text", ["at /" + "home/ada/study", "'/" + "root/.cache'", "/" + "Users/ada"])
def test_a_home_is_found(text: str) -> None:
    assert homes(f"fine\n{text}") == ["line 2"]


@pytest.mark.parametrize("text", ["study/engine/team.py", "~/work", "a/root/b", "/shared/runs", "{folder}/home/x"])
def test_what_is_no_home(text: str) -> None:
    assert homes(text) == []


def test_every_module_says_what_it_is() -> None:
    modules = (path for path in written() if path.suffix == ".py" and "tests" not in path.relative_to(ROOT).parts)
    assert [str(path.relative_to(ROOT)) for path in modules if undocumented(path)] == []


def test_an_undocumented_module_is_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("x = 1\n")
    (tmp_path / "empty.py").write_text("")
    assert undocumented(tmp_path / "module.py")
    assert not undocumented(tmp_path / "empty.py")


def test_locks_pin_every_package_by_name_and_version_alone() -> None:
    runtime = (ROOT / "requirements.lock").read_text().splitlines()
    first, *test = (ROOT / "requirements-test.lock").read_text().splitlines()
    assert first == "-r requirements.lock"
    pin = re.compile(r"[\w.-]+==[\w.]+")  # no +local version, no URL, no path
    assert [line for line in runtime + test if not pin.fullmatch(line)] == []
    assert [line for line in runtime + test if line.startswith(("nvidia", "cuda", "triton"))] == []
    names = [line.partition("==")[0].lower() for line in runtime + test]
    assert len(names) == len(set(names))
