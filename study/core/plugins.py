"""A name is a file: `vkd` among the methods is the one dataclass that study/methods/vkd.py defines.

Packages of others have folders called like those of the project, `my_package/methods/` and so on, and their files are
names as well. Such a package is installed with an entry point in the group `mus.plugins`, or named (`use`).
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
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
SECTIONS = "sections"
"""The folder of a package of others with sections of the report."""
FOLDERS = (*PACKAGES, SPACES, SECTIONS)
"""Those of a package of others, any of which may be there."""
OWN = ("study", "analysis", SPACES)
"""The packages of the project: a mistake in one of them is a bug, and its traceback is wanted."""
GROUP = "mus.plugins"
"""The group of entry points whose values are packages with plug-ins."""
VARIABLE = "MUS_PLUGINS"
"""The environment variable with further packages, separated by commas: workers find in it what the driver was told."""


def known(kind: Kind) -> tuple[str, ...]:
    """The names of a kind, in alphabetical order."""
    return tuple(sorted(modules(kind)))


def modules(kind: Kind) -> dict[str, str]:
    """The module behind each name of a kind. Raises `ValueError` if two packages have a name."""
    return _modules(PACKAGES[kind])


def find(kind: Kind, name: str) -> type[Any]:
    """The dataclass of a plug-in. Raises `ValueError` with the nearest known name, or what is wrong with its file."""
    there = modules(kind)
    check(kind, name, tuple(sorted(there)))
    module = imported(there[name])
    public: list[type[Any]] = [c for c in vars(module).values() if _is_plugin(c, module)]
    if len(public) != 1:
        raise ValueError(
            f"{module.__name__.replace('.', '/')}.py must define exactly one public dataclass, found {public}"
        )
    return public[0]


def name_of(plugin: object) -> str:
    """The name of an object's plug-in: its file, without folder and suffix."""
    return type(plugin).__module__.rpartition(".")[2]


def search_space(name: str) -> ModuleType:
    """The search space of a method or attack. Raises `ValueError` with the nearest known name."""
    there = _modules(SPACES)
    check(SPACES, name, tuple(sorted(there)))
    return imported(there[name])


def known_spaces() -> tuple[str, ...]:
    """The names of the methods and attacks that have a search space."""
    return tuple(sorted(_modules(SPACES)))


def check(kind: str, name: str, names: tuple[str, ...]) -> None:
    """Raise `ValueError` with the nearest known name unless `name` is one of `names`."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown name {name!r} among the {kind}: {meant}There are {', '.join(names)}")


# ---- packages of others ----------------------------------------------------------------------------------------------
def use(packages: Sequence[str]) -> None:
    """Find plug-ins in these packages too, here and in every process begun from here; one may be named by its folder.

    Raises `ValueError` with the remedy for a package that is not there, or that has no folder for plug-ins.
    """
    given = [text for packed in packages for text in packed.split(",") if text]
    names = [_importable(text) for text in given]
    for name, text in zip(names, given, strict=True):
        if _places(name) is None:
            remedy = (
                "no such folder" if "/" in text else f"no such package; install it, or name its folder, as in ./{text}"
            )
            raise ValueError(f"plugins={text}: {remedy}")
        if not any(_places(f"{name}.{folder}") for folder in FOLDERS):
            raise ValueError(f"plugins={text}: a package without plug-ins: it has none of {', '.join(FOLDERS)}")
    if names:
        os.environ[VARIABLE] = ",".join(dict.fromkeys([*_named(), *names]))


def others() -> tuple[str, ...]:
    """The packages of others: those that are installed with an entry point, then those that were named."""
    return tuple(dict.fromkeys([*_installed(), *_named()]))


def of_others(folder: str) -> dict[str, str]:
    """The files of other packages in folders of this name, each with its module."""
    found: dict[str, str] = {}
    for package in others():
        for place in _places(f"{package}.{folder}") or ():
            _add(found, {name: f"{package}.{folder}.{name}" for name in _names(Path(place))})
    return found


def _importable(text: str) -> str:
    """A package by its name; one that is named by its folder is made importable, by workers too."""
    folder = Path(text).expanduser()
    if "/" not in text or not folder.is_dir():
        return text
    above = str(folder.absolute().parent)
    if above not in sys.path:
        sys.path.append(above)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), above]))
    return folder.name


def _named() -> list[str]:
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]


@cache
def _installed() -> tuple[str, ...]:
    return tuple(sorted(point.value for point in entry_points(group=GROUP)))


def _places(package: str) -> Sequence[str] | None:
    """The folders of a package, or None if there is none of that name."""
    parts = package.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    try:
        with _told(package):
            spec = find_spec(package)
    except ModuleNotFoundError:
        return None
    return None if spec is None else spec.submodule_search_locations or ()


def imported(module: str) -> ModuleType:
    """A module of a plug-in. Raises `ValueError` that names the line if it is of others and does not import."""
    with _told(module):
        return import_module(module)


@contextmanager
def _told(module: str) -> Iterator[None]:
    """Around an import of what others wrote: whatever it raises, an exit too, is a `ValueError` that names the line.

    That a package above the module is not there is left as it is.
    """
    parts = module.split(".")
    try:
        yield
    except (Exception, SystemExit) as error:
        above = [".".join(parts[:end]) for end in range(1, len(parts))]
        absent = isinstance(error, ModuleNotFoundError) and error.name in above
        if absent or parts[0] in OWN:
            raise
        frames = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if not isinstance(error, SyntaxError) else ""
        raise ValueError(
            f"plug-in {module} cannot be imported: {type(error).__name__}: {error}{where}; repair it, or leave its "
            "package out of --plugins"
        ) from error


def _modules(package: str) -> dict[str, str]:
    """The module behind each name in a package of the project and in those of others that are called like it."""
    found = {name: f"{package}.{name}" for name in _names(ROOT.joinpath(*package.split(".")))}
    _add(found, of_others(package.rpartition(".")[2]))
    return found


def _add(found: dict[str, str], more: Mapping[str, str]) -> None:
    for name, module in more.items():
        if name in found:
            raise ValueError(f"{module} and {found[name]} have one name: rename one of these files")
        found[name] = module


def _names(folder: Path) -> list[str]:
    return [path.stem for path in folder.glob("[!_.]*.py")]


def _is_plugin(candidate: object, module: ModuleType) -> bool:
    return (
        isinstance(candidate, type)
        and dataclasses.is_dataclass(candidate)
        and candidate.__module__ == module.__name__
        and not candidate.__name__.startswith("_")
    )
