"""What holds for every file: nothing of the machine it was written on, and every module says what it is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

MADE = re.compile(r"\.git|\.venv|runs|dist|build|__pycache__|\.\w+_cache|\.hypothesis|.*\.egg-info")

LAYOUT = "study/core/layout.py"
"""The module that says where things lie in a study folder."""

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


def strings(node: ast.AST) -> set[str]:
    """The pieces of every string in an expression."""
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def path_pieces(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """What is spelt out in paths and patterns of a module, with the line: operands of `/`, arguments of globs."""
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(op=ast.Div(), right=ast.Constant(str(name))):
                yield node.lineno, set(name.split("/"))
            case ast.BinOp(op=ast.Div(), right=ast.JoinedStr() as pieces):
                yield node.lineno, {part for text in strings(pieces) for part in text.split("/")}
            case ast.Call(func=ast.Attribute(attr="glob" | "rglob" | "joinpath" | "with_name" | "with_suffix")):
                yield node.lineno, {part for text in strings(node) for part in text.split("/")}
            case ast.Constant(str(name)) if Path(name).suffix and not re.search(r"[\s*]", name):
                yield node.lineno, {name}


def layout_names() -> set[str]:
    """Every name that a study folder consists of, as the one module spells it that may."""
    tree = ast.parse((ROOT / LAYOUT).read_text(encoding="utf-8"))
    return {name for _, names in path_pieces(tree) for name in names if re.fullmatch(r"[a-z_]+(\.[a-z]+)?", name)}


def misplaced_names(path: Path, names: set[str]) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return sorted({f"{path.name}:{line} {name}" for line, found in path_pieces(tree) for name in found & names})


def test_only_the_layout_spells_the_names_of_a_study_folder() -> None:
    names = layout_names()
    assert names > {"trial.json", "learned.json", "delta.safetensors", "model", "trials", "metric_check", "rows"}
    modules = [path for part in ("study", "analysis") for path in sorted((ROOT / part).rglob("*.py"))]
    assert [found for path in modules if path != ROOT / LAYOUT for found in misplaced_names(path, names)] == []


@pytest.mark.parametrize(
    "source",
    [
        "path = root / 'trials' / key",
        "path = folder.trial(key) / 'delta.safetensors'",
        "paths = root.glob('search/*/*.json')",
        "FILE = 'curve.json'",
        "path = root / f'trials/{key}'",
        "path = rows.with_name('trial.json')",
    ],
)
def test_a_name_of_the_layout_is_found(tmp_path: Path, source: str) -> None:
    (tmp_path / "module.py").write_text(source)
    assert len(misplaced_names(tmp_path / "module.py", layout_names())) == 1


@pytest.mark.parametrize("source", ["say('trials')", "part = kind / 'tables'", "'remove search/ and run again'"])
def test_what_is_no_name_of_the_layout(tmp_path: Path, source: str) -> None:
    (tmp_path / "module.py").write_text(source)
    assert misplaced_names(tmp_path / "module.py", layout_names()) == []


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
