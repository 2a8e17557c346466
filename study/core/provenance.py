"""What computes a result: the code, the libraries and the machine."""

from __future__ import annotations

import functools
import hashlib
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from study.core.hashing import Json
from study.core.plugins import ROOT, Kind, modules
from study.core.terms import Dtype

PACKAGES = ("torch", "transformers", "peft", "ray", "optuna", "pandas", "numpy", "tokenizers", "pillow")
"""The libraries that numbers depend on."""
ROOMS = (
    "contracts.py", "base_models", "benchmarks", "core", "data", "engine", "evaluation", "experiment", "metrics",
    "model", "training",
)  # fmt: skip
"""What of `study/` every result is computed by, besides its method or its attack."""
KINDS: tuple[Kind, ...] = ("methods", "attacks")
"""The plug-ins that compute results."""
PROCESSORS = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Origin:
    """What computed a result."""

    revision: str
    """As `revision`."""
    versions: Mapping[str, str]
    """Of Python and of `PACKAGES`."""
    cpu: str
    gpu: str
    """Empty on the CPU."""
    dtype: Dtype
    threads: int
    code: str = ""
    """As `code_of`; empty where the record is from before this was written down."""


@functools.cache
def revision() -> str:
    """The git revision of this project, with a plus sign if files differ from it; empty without git or checkout."""

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError:  # no git on this machine
            return ""
        return done.stdout.strip()

    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")


def code_of(settings: Json) -> str:
    """The digest of the code that computes a result with these settings, as records hold them: of the methods and
    attacks they name, of what these share with others beside them, and of the rooms below.

    Unlike the revision it tells two states of files that were not committed apart, and not two that differ in docs.
    """
    return _code_of(frozenset(_types(settings)))


@functools.cache
def _code_of(types: frozenset[str]) -> str:
    below = [path for room in ROOMS for path in _sources(ROOT / "study" / room)]
    texts = {path: path.read_text(encoding="utf-8") for path in _plugins()}
    named = {path for path, text in texts.items() if types & set(re.findall(r"^class (\w+)", text, re.MULTILINE))}
    digest = hashlib.sha256()
    for path in sorted({*below, *_with_shared(named, texts)}):
        digest.update(f"{path.parent.name}/{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _types(settings: Json) -> Iterator[str]:
    """The names of all classes in a canonical form."""
    if isinstance(settings, Mapping):
        yield from [str(settings["type"])] if "type" in settings else []
        settings = list(settings.values())
    for value in settings if isinstance(settings, list) else ():
        yield from _types(value)


def _sources(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _plugins() -> Set[Path]:
    """The files of all methods and attacks, those of other packages too, and what lies beside them to be shared."""
    specs = [find_spec(module) for kind in KINDS for module in modules(kind).values()]
    files = {Path(spec.origin) for spec in specs if spec and spec.origin}
    return files.union(*(file.parent.glob("_*.py") for file in files))


def _with_shared(plugins: Set[Path], texts: Mapping[Path, str]) -> Set[Path]:
    """Files of plug-ins, and those beside them whose names begin with an underscore that they import."""
    found, left = set[Path](), set(plugins)
    while left:
        found |= left
        words = {(path.parent, word) for path in left for word in re.findall(r"\b_\w+", texts[path])}
        left = {path for path in texts if (path.parent, path.stem) in words} - found
    return found


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


@functools.cache
def cpu() -> str:
    """The model of the processor: other models may round otherwise."""
    try:
        lines = PROCESSORS.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
