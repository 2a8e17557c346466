"""The package of docs/plug-ins.md is found, planned and reported as the project's own files are."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.sections import sections
from study import run
from study.__main__ import main
from study.command_line import listing
from study.core import plugins
from study.core.plugins import known, known_spaces
from study.stages.preflight import validate_study
from tests import ROOT

PAGE = ROOT / "docs" / "plug-ins.md"
FILE = re.compile(r"^`([\w./-]+)`[^\n]*:\n\n```\w+\n(.*?)```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The repository of the page, in the current folder; what finding it leaves behind in this process goes again."""
    for name, source in FILE.findall(PAGE.read_text(encoding="utf-8")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source, encoding="utf-8")
    (tmp_path / "my_unlearning" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    yield tmp_path / "my_unlearning"
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_unlearning"]:
        del sys.modules[name]


def test_the_page_shows_every_file_of_its_layout() -> None:
    text = PAGE.read_text(encoding="utf-8")
    listed = set(re.findall(r"^  ((?:my_unlearning/\w+/)?[\w.]+\.(?:py|toml))", text, re.MULTILINE))
    assert listed == {name for name, _ in FILE.findall(text)}


def test_a_package_is_planned_from_its_folder(package: Path, tmp_path: Path) -> None:
    asked = "smoke --plugins ./my_unlearning --methods fade --attacks politely --trials 4 --study-dir runs/fade"
    study = run.parse(asked.split())
    assert "fade" not in known("methods")
    plan = validate_study(study.resolved(), tmp_path / "data")
    assert plan.defaults["fade"].trains == ("projector",)
    assert [type(attack).__module__ for attack in plan.study.attackers()] == ["my_unlearning.attacks.politely"]
    assert "fade" in known_spaces()
    assert [section.title for section in sections()][-1] == "Nearly forgotten"


def test_a_worker_is_told_of_a_package(package: Path) -> None:
    plugins.use([str(package)])
    assert os.environ[plugins.VARIABLE] == "my_unlearning"
    assert os.environ["PYTHONPATH"].split(os.pathsep)[-1] == str(package.parent)


def test_other_commands_take_packages_in_front(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plugins", "./my_unlearning", "list", "methods"]) == 0
    assert re.search(r"^fade +Fading: a part of all", capsys.readouterr().out, re.MULTILINE)


def test_an_installed_package_is_found_by_its_entry_point(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(package.parent))
    about = package.parent / "my_unlearning-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-unlearning\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nmy_unlearning = my_unlearning\n")
    plugins._installed.cache_clear()
    try:
        assert "fade" in known("methods")
        assert listing.KINDS["attacks"][1]()["politely"] == "Politeness: the question, asked nicely."
    finally:
        plugins._installed.cache_clear()


def test_two_files_of_one_name_are_refused(package: Path) -> None:
    (package / "methods" / "vkd.py").touch()
    plugins.use(["./my_unlearning"])
    with pytest.raises(ValueError, match=r"my_unlearning\.methods\.vkd and study\.methods\.vkd have one name"):
        known("methods")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("no_such_package", r"no such package; install it, or name its folder, as in \./no_such_package"),
        ("./nowhere", "no such folder$"),
        ("my_unlearning.nothing", "no such package; install it"),
        ("json", "a package without plug-ins: it has none of methods, attacks, "),
    ],
)
def test_a_package_that_is_not_there_is_named_with_the_remedy(package: Path, asked: str, told: str) -> None:
    with pytest.raises(ValueError, match=rf"plugins={re.escape(asked)}: {told}"):
        plugins.use([asked])


@pytest.mark.parametrize("file", ["__init__.py", "methods/fade.py"])
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("\nraise RuntimeError('boom')\n", r"RuntimeError: boom \(.*my_unlearning.*\.py, line 2\)"),
        ("import no_such_package\n", r"ModuleNotFoundError: .*no_such_package' \(.*, line 1\)"),
        ("import sys\nsys.exit(5)\n", r"SystemExit: 5 \(.*, line 2\)"),
        ("def (\n", r"SyntaxError: invalid syntax \(.*\.py, line 1\)"),
    ],
)
def test_a_package_that_does_not_import_is_named_with_the_line(
    package: Path, tmp_path: Path, file: str, source: str, told: str
) -> None:
    (package / file).write_text(source)
    asked = ["smoke", "--plugins", "./my_unlearning", "--methods", "fade"]
    with pytest.raises(ValueError, match=rf"^plug-in my_unlearning\.methods\S* cannot be imported: {told}; repair it"):
        validate_study(run.parse(asked).resolved(), tmp_path / "data")


def test_a_section_that_does_not_import_is_named_with_the_line(package: Path) -> None:
    (package / "sections").mkdir(exist_ok=True)
    (package / "sections" / "broken.py").write_text("\nraise RuntimeError('boom')\n")
    plugins.use(["./my_unlearning"])
    told = r"^plug-in my_unlearning\.sections\.broken cannot be imported: RuntimeError: boom \(.*, line 2\)"
    with pytest.raises(ValueError, match=told):
        sections()
