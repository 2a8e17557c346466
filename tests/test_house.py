"""What holds for every file: nothing of the machine it was written on, and every module says what it is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MADE = re.compile(r"\.git|\.venv|runs|dist|build|__pycache__|\.\w+_cache|\.hypothesis|.*\.egg-info")

LEAKS = {
    "a package registry's host": re.compile(
        r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs\.org|deb\.debian\.org", re.IGNORECASE
    ),
    "where packages come from": re.compile(r"--(?:extra-)?index-[u]rl|--find-[l]inks|--trusted-[h]ost|PIP_[I]NDEX"),
    "a path of one machine": re.compile(r"(?<![\w.*~})-])/(?:work|root|mnt|Users|opt/\w+|home/\w+)(?:/|\b)(?!\.py)"),
}


def written(folder: Path = ROOT) -> Iterator[Path]:
    """Every file that somebody wrote."""
    for path in sorted(folder.iterdir()):
        if MADE.fullmatch(path.name) or path.is_symlink():
            continue
        if path.is_dir():
            yield from written(path)
        else:
            yield path


def leaks(text: str) -> list[str]:
    return [
        f"line {number}: {match[0]} is {what}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in LEAKS.items()
        for match in pattern.finditer(line)
    ]


def undocumented(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return bool(tree.body) and not ast.get_docstring(tree)


def test_no_file_tells_where_it_was_written() -> None:
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8", errors="ignore") for path in written()}
    found = {str(path): leaks(text) for path, text in texts.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "text",
    ["at /" + "work/main", "'/" + "root/.cache'", "https://" + "pypi" + ".org/simple", "--find" + "-links wheels"],
)
def test_a_leak_is_found(text: str) -> None:
    assert leaks(f"fine\n{text}") != []


@pytest.mark.parametrize("text", ["study/workers.py", "~/work", "a/root/b", "/shared/runs", "{folder}/work"])
def test_what_is_no_leak(text: str) -> None:
    assert leaks(text) == []


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
