"""What settings can name: `mus list methods`, and likewise attacks, presets, benchmarks and so on, a line each."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from study.core import plugins
from study.core.documented import first_line


def _documented(modules: Mapping[str, str]) -> dict[str, str]:
    """The first line of each module, read without importing it: methods and attacks need torch, their names do not."""
    found = {}
    for name, module in sorted(modules.items()):
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        found[name] = first_line(ast.get_docstring(tree))
    return found


def _presets() -> dict[str, str]:
    from study.presets import PRESETS

    return {name: what for name, (what, _) in PRESETS.items()}


def _metrics() -> dict[str, str]:
    from study.metrics.registry import METRICS

    return {metric.name: f"{metric.formula} ({metric.range}; {metric.better})" for metric in METRICS}


KINDS: Mapping[str, tuple[str, Callable[[], dict[str, str]]]] = {
    "methods": ("--methods", lambda: _documented(plugins.modules("methods"))),
    "attacks": ("--attacks, --searched-attacks and --robustness", lambda: _documented(plugins.modules("attacks"))),
    "presets": ("mus run", _presets),
    "benchmarks": ("--benchmark", lambda: _documented(plugins.modules("benchmarks"))),
    "models": ("--base-model", lambda: _documented(plugins.modules("base_models"))),
    "families": (
        "the folders of base models, by model_type in their config.json",
        lambda: _documented(plugins.modules("families")),
    ),
    "metrics": ("reading the report", _metrics),
}
"""What the names of a kind are for, and what there is with a line about each."""


def main(arguments: list[str] | None = None) -> int:
    """Print what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="mus list", description=__doc__)
    parser.add_argument("kind", nargs="?", choices=KINDS, help="what to list; without it, the kinds")
    kind = parser.parse_args(arguments).kind
    lines = KINDS[kind][1]() if kind else {name: f"for {where}" for name, (where, _) in KINDS.items()}
    widest = max(map(len, lines))
    for name, what in lines.items():
        print(f"{name:<{widest}}  {what}")
    return 0
