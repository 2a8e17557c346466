"""A name is a file: `vkd` among the methods is the one dataclass that study/methods/vkd.py defines."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

Kind = Literal["methods", "attacks", "base_models", "benchmarks", "families"]

ROOT = Path(__file__).parents[2]
PACKAGES: Mapping[Kind, str] = {
    "methods": "study.methods",
    "attacks": "study.attacks",
    "base_models": "study.base_models",
    "benchmarks": "study.benchmarks",
    "families": "study.model.families",
}
SPACES = "search_spaces"


def known(kind: Kind) -> tuple[str, ...]:
    """The names of a kind, in alphabetical order."""
    return _names(PACKAGES[kind])


def find(kind: Kind, name: str) -> type[Any]:
    """The dataclass of a plug-in. Raises `ValueError` with the nearest known name."""
    check(kind, name, known(kind))
    module = import_module(f"{PACKAGES[kind]}.{name}")
    public: list[type[Any]] = [c for c in vars(module).values() if _is_plugin(c, module)]
    if len(public) != 1:
        raise TypeError(
            f"{module.__name__.replace('.', '/')}.py must define exactly one public dataclass, found {public}"
        )
    return public[0]


def name_of(plugin: object) -> str:
    """The name of an object's plug-in: its file, without folder and suffix."""
    return type(plugin).__module__.rpartition(".")[2]


def search_space(name: str) -> ModuleType:
    """The search space of a method or attack. Raises `ValueError` with the nearest known name."""
    check("search_spaces", name, known_spaces())
    return import_module(f"{SPACES}.{name}")


def known_spaces() -> tuple[str, ...]:
    """The names of the methods and attacks that have a search space."""
    return _names(SPACES)


def check(kind: str, name: str, names: tuple[str, ...]) -> None:
    """Raise `ValueError` with the nearest known name unless `name` is one of `names`."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown name {name!r} among the {kind}: {meant}There are {', '.join(names)}")


def _names(package: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in ROOT.joinpath(*package.split(".")).glob("[!_.]*.py")))


def _is_plugin(candidate: object, module: ModuleType) -> bool:
    return (
        isinstance(candidate, type)
        and dataclasses.is_dataclass(candidate)
        and candidate.__module__ == module.__name__
        and not candidate.__name__.startswith("_")
    )
