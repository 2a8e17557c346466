"""`mus`: every command is there, answers `--help` without doing anything, and hands its arguments over."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from study.__main__ import main
from study.command_line import completion
from study.command_line.commands import COMMANDS
from study.command_line.listing import KINDS
from study.core.plugins import known
from study.presets import PRESETS
from tests import ROOT
from tests.test_architecture import imports_without

LIGHT = ("run", "list", "status", "completion")
"""Commands whose help imports nothing that takes seconds."""


def test_every_command_answers_help_as_it_is_typed_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (module, _) in COMMANDS.items():
        if module:
            with pytest.raises(SystemExit, match="0"):
                import_module(module).main(["--help"])
            assert capsys.readouterr().out.startswith(f"usage: mus {name} "), name
    assert not [*tmp_path.iterdir()]


def test_help_writes_no_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands for contributors answer as well."""
    from study import write_docs

    monkeypatch.setattr(write_docs, "DOCS", tmp_path)
    with pytest.raises(SystemExit, match="0"):
        write_docs.main(["--help"])
    assert not [*tmp_path.iterdir()]


def test_without_a_command_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == shown
    for name in COMMANDS:
        assert f"\n  {name} " in shown


def test_an_unknown_command_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stauts"]) == 2
    assert "did you mean 'status'?" in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["version", "--version"])
def test_the_version_is_told(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([asked]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"mllm-unlearning-study {version('mllm-unlearning-study')}\n")
    assert f"torch {version('torch')}" in shown


def test_the_script_and_the_module_are_one_command() -> None:
    assert 'mus = "study.__main__:main"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "study", "list"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("methods ")


def test_light_commands_import_nothing_that_takes_seconds() -> None:
    heavy = ("torch", "transformers", "ray", "optuna", "pandas", "scipy")
    done = imports_without(heavy, ["study.__main__", *(COMMANDS[name][0] for name in LIGHT)])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_listed_with_a_line_for_each_name(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    assert len(names) == len(set(names))
    assert all(len(line.split()) > 3 for line in lines)
    if kind in ("methods", "attacks", "benchmarks", "families"):
        assert names == [*known(kind)]  # type: ignore[arg-type]
    if kind == "presets":
        assert names == [*PRESETS]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("st", "status"),
        ("list me", "methods metrics"),
        ("run --methods gradient_a", "gradient_ascent"),
        ("run --methods vkd np", "npo"),
        ("run --attacks swap", "swap_back"),
        ("run --dry-run smo", "smoke"),
        ("run --forget-", "--forget-ratios --forget-attributes"),
        ("run --benchmark syn", "synthetic"),
        ("status ru", ""),
    ],
)
def test_bash_completes(words: str, expected: str) -> None:
    given = ["mus", *words.split()]
    asked = f'COMP_WORDS=({" ".join(given)}); COMP_CWORD={len(given) - 1}; _mus; echo "${{COMPREPLY[*]}}"'
    script = f"{completion.script()}\n{asked}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
