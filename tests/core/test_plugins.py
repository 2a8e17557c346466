"""A name is a file."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from study.core import plugins
from study.core.plugins import Kind, find, known, known_spaces, name_of, search_space
from study.settings import REFERENCES

KINDS: tuple[Kind, ...] = get_args(Kind)
Plant = Callable[[str, str], None]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    """Puts a source file among the methods, in a folder of its own."""
    import study.methods

    folder = tmp_path / "study" / "methods"
    folder.mkdir(parents=True)
    monkeypatch.setattr(plugins, "ROOT", tmp_path)
    monkeypatch.setattr(study.methods, "__path__", [str(folder)])
    before = set(sys.modules)

    def write(name: str, source: str) -> None:
        (folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


CLASS = "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass {0}:\n    x: int = 1\n"


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_a_dataclass_that_is_found_by_it(kind: Kind) -> None:
    names = known(kind)
    assert names == tuple(sorted(names))
    assert names
    for name in names:
        plugin = find(kind, name)
        assert dataclasses.is_dataclass(plugin)
        assert plugin.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert plugin.__module__ == f"{plugins.PACKAGES[kind]}.{name}"


def test_helpers_are_no_names() -> None:
    assert not [name for kind in KINDS for name in known(kind) if name.startswith("_")]
    assert "synthetic" in known("benchmarks")


def test_an_object_knows_its_name() -> None:
    assert name_of(find("base_models", "tiny")()) == "tiny"


def test_every_method_but_the_yardsticks_has_a_search_space_and_every_space_a_plugin() -> None:
    spaces = set(known_spaces())
    methods = set(known("methods"))
    assert methods - spaces == set(REFERENCES)
    assert spaces - methods <= set(known("attacks"))
    for name in spaces:
        assert callable(search_space(name).space)


@pytest.mark.parametrize(("asked", "meant"), [("vkdd", "vkd"), ("gradient_asent", "gradient_ascent")])
def test_the_nearest_name_is_told(asked: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"unknown name '{asked}' among the methods: did you mean '{meant}'"):
        find("methods", asked)
    with pytest.raises(ValueError, match=f"unknown name '{asked}' among the search_spaces: did you mean '{meant}'"):
        search_space(asked)


@pytest.mark.parametrize("name", ["zzzzzzzz", "", "../vkd", "_people"])
def test_an_unknown_name_lists_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown name .*There are .*npo.*vkd"):
        find("methods", name)


def test_a_new_file_is_a_new_name(plant: Plant) -> None:
    imported = "from study.training.loop import Schedule\n"  # a dataclass of another module does not count
    plant("newest", imported + CLASS.format("Newest") + CLASS.format("_Private"))
    assert known("methods") == ("newest",)
    assert name_of(find("methods", "newest")()) == "newest"


@pytest.mark.parametrize("source", ["x = 1\n", CLASS.format("One") + CLASS.format("Two"), "class Plain:\n    pass\n"])
def test_a_file_without_its_one_dataclass_is_refused(plant: Plant, source: str) -> None:
    plant("broken", source)
    with pytest.raises(ValueError, match=r"study/methods/broken\.py must define exactly one public dataclass"):
        find("methods", "broken")
