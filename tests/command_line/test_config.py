"""A study in a file: what is printed reads back to the same settings, and what is wrong is told with its line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from study import run
from study.command_line import config
from study.presets import PRESETS
from study.settings import Study
from study.training.schedule import Schedule


@pytest.mark.parametrize("preset", PRESETS)
def test_a_printed_preset_reads_back_to_itself(preset: str, tmp_path: Path) -> None:
    file = tmp_path / "my_study.py"
    file.write_text(config.source(PRESETS[preset][1]), encoding="utf-8")
    assert repr(config.read(str(file))) == repr(PRESETS[preset][1])  # also what comparisons leave out
    assert max(map(len, file.read_text(encoding="utf-8").splitlines())) <= 120


def test_what_a_comparison_leaves_out_and_every_kind_of_text_are_printed(tmp_path: Path) -> None:
    study = Study(learn=Schedule(checkpoint=True), vanilla='a "quoted" name\n\\ é', forget_ratios=(5,), trials=3)
    file = tmp_path / "my_study.py"
    file.write_text(config.source(study), encoding="utf-8")
    assert config.read(str(file)).learn.checkpoint
    assert repr(config.read(str(file))) == repr(study)


def test_options_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my_study.py"
    file.write_text(config.source(PRESETS["smoke"][1]), encoding="utf-8")
    study = run.parse(["--trials", "6", f"--config={file}", "--dry-run"])
    assert study == dataclasses.replace(PRESETS["smoke"][1], trials=6, dry_run=True)
    assert run.parse(["--config", str(file)]) == PRESETS["smoke"][1]


def test_print_config_prints_what_would_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run.main(["--print-config", "smoke", "--trials", "6"]) == 0
    file = tmp_path / "my_study.py"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert config.read(str(file)) == dataclasses.replace(PRESETS["smoke"][1], trials=6)


def test_a_file_may_build_on_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "my_study.py"
    file.write_text(
        "from dataclasses import replace\nfrom study.presets import PRESETS\n"
        "mine = replace(PRESETS['tiny'][1], trials=24)\nthe_same = mine\n"
    )
    assert config.read(str(file)).trials == 24


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n", "defines 0 studies: assign one Study"),
        ("from study.settings import Study\na = Study()\nb = Study(trials=9)\n", "defines 2 studies"),
        ("from study.settings import Study\n\na = Study(trials=0)\n", "line 3: ValueError: trials=0: use at least 1"),
        ("from study.settings import Study\na = Study(trails=2)\n", "line 2: TypeError: .*trails"),
        ("a = (\n", "line 1: SyntaxError"),
        ("raise SystemExit(3)\n", "line 1: SystemExit: 3"),
    ],
)
def test_a_file_that_defines_no_study_is_told(source: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "my_study.py"
    file.write_text(source)
    with pytest.raises(ValueError, match=rf"--config .*my_study\.py.*{said}"):
        config.read(str(file))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config"], "--config takes one file"),
        (["--config", "--dry-run"], "--config takes one file"),
        (["--config", "a.py", "--config", "b.py"], "--config takes one file"),
        (["--config", "nowhere.py"], "no such file; `mus run --print-config` prints one"),
        (["smoke", "--config", "nowhere.py"], "preset smoke with --config nowhere.py"),
    ],
)
def test_a_config_that_is_not_there_is_told(arguments: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run.parse(arguments)
