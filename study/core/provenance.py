"""What computes a result: the code, the libraries and the machine."""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from study.core.plugins import ROOT
from study.core.terms import Dtype

PACKAGES = ("torch", "transformers", "peft", "ray", "optuna", "pandas", "numpy", "tokenizers", "pillow")
"""The libraries that numbers depend on."""
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
