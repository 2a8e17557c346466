"""The command line of a study: where its preset stands, and help that anyone can read."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise

import pytest

from study import run
from study.command_line.options import WIDEST, options, split
from study.presets import PRESETS
from study.settings import HEADINGS, Study
from study.training.schedule import Schedule

HIDDEN = {"defaults", "attack_grid", "cost"}


@pytest.mark.parametrize(
    ("arguments", "preset", "rest"),
    [
        ("smoke --trials 4", "smoke", "--trials 4"),
        ("--trials 4 smoke", "smoke", "--trials 4"),
        ("--trials=4 smoke --dry-run", "smoke", "--trials=4 --dry-run"),
        ("--dry-run smoke", "smoke", "--dry-run"),
        ("--help smoke", "smoke", "--help"),
        ("--no-metric-check smoke", "smoke", "--no-metric-check"),
        ("--methods vkd npo smoke --seed 1", "smoke", "--methods vkd npo --seed 1"),
        ("--learn.steps 7 audit", "audit", "--learn.steps 7"),
        ("--learn.lora_rank 7 audit", "audit", "--learn.lora_rank 7"),
        ("--model tiny --trials 4", "", "--model tiny --trials 4"),  # the base model
        ("--base_model tiny smoke", "smoke", "--base_model tiny"),
        ("--reference x tiny --vanilla y", "", "--reference x tiny --vanilla y"),
        ("--study-dir smoke", "", "--study-dir smoke"),
        ("--confirm-seeds -1 smoke", "smoke", "--confirm-seeds -1"),
        ("", "", ""),
    ],
)
def test_a_preset_may_stand_anywhere(arguments: str, preset: str, rest: str) -> None:
    assert split(arguments.split(), PRESETS) == (preset, rest.split())


def test_a_second_preset_and_a_word_that_is_none_are_refused() -> None:
    with pytest.raises(ValueError, match="two presets, smoke and tiny"):
        split(["smoke", "--dry-run", "tiny"], PRESETS)
    with pytest.raises(ValueError, match="did you mean 'smoke'"):
        split(["--trials", "4", "smok"], PRESETS)


def page(capsys: pytest.CaptureFixture[str], columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit, match="0"):
        run.parse(["--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_help_is_wrapped_as_wide_as_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line ends where the next word does not fit; a long value and a command stay whole."""
    width = min(columns, WIDEST)
    lines = page(capsys, columns, monkeypatch).splitlines()
    for line, after in pairwise(lines):
        assert len(line) <= width or len(line.split()) == 1 or line.startswith("  mus"), line
        begins = len(after) - len(after.lstrip())
        if line.startswith(" " * 6) and after.startswith(" " * 6) and begins == len(line) - len(line.lstrip()):
            assert len(line) + 1 + len(after.split()[0]) > width, (line, after)


def test_help_stands_in_groups_with_examples_that_are_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = page(capsys, 120, monkeypatch)
    for heading in HEADINGS.values():
        assert re.search(rf"^{heading}:$", shown, re.MULTILINE), heading
    examples = re.findall(r"^  mus run (.*)$", shown, re.MULTILINE)
    assert len(examples) == len(run.EXAMPLES)
    for example in examples:
        if "--config" not in example:
            assert isinstance(run.parse(example.split()), Study)


def test_help_explains_every_setting_with_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = " ".join(page(capsys, 120, monkeypatch).split())
    for option in options(PRESETS["tiny"][1]):
        written = f" {', '.join(option.flags)} {option.metavar}".rstrip() + " "
        explained = shown.split(written, 1)[1]
        assert explained.startswith(option.meaning), option.flags
        assert 1 < len(option.meaning.split()) < 45, option.flags
        if option.default != "none":
            assert explained.removeprefix(option.meaning).startswith(f" (default: {option.default})"), option.flags


def test_every_setting_is_an_option() -> None:
    flags = {flag for option in options(Study()) for flag in option.flags}
    plain = {f.name for f in dataclasses.fields(Study)} - HIDDEN - {"learn", "gate"}
    nested = {f"learn.{field.name}" for field in dataclasses.fields(Schedule)} | {"gate.known"}
    assert {f"--{name.replace('_', '-')}" for name in plain | nested} <= flags
    assert not {f"--{name.replace('_', '-')}" for name in HIDDEN} & flags
    assert "--base-model" in flags
