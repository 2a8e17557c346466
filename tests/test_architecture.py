"""The arrows of the house: who may not import whom. Imports under TYPE_CHECKING and inside functions count too."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("study", "search_spaces", "analysis")
KINDS = ("methods", "attacks", "models", "benchmarks", "families")
ABOVE_A_TRIAL = tuple(
    f"study.{name}"
    for name in ("run", "pipeline", "attack_stage", "metric_check", "running", "tuning", "workers", "cluster")
)


@dataclass(frozen=True)
class Rule:
    """The modules among `files`, less those in `exempt`, import nothing in `forbidden` outside `allowed`."""

    files: tuple[str, ...]
    forbidden: tuple[str, ...]
    exempt: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{' '.join(self.files)} !-> {' '.join(self.forbidden)}"


SEARCHES = ("study/tuning.py", "study/series.py", "study/attacking.py")
EVERYTHING = tuple(f"{package}/**/*.py" for package in PACKAGES)
PLUGINS = tuple(f"study/{kind}/*.py" for kind in KINDS)
MEASURES = ("text_metrics", "answer_metrics", "aggregates", "distances", "metrics", "metric_trust")
TORCHLESS = ("questions", "hub", "store", "storage", "objectives", "plugins", "portraits", "language", *MEASURES)
RULES = [
    Rule(
        ("study/**/*.py",),
        ("search_spaces", "analysis"),
        exempt=tuple(
            f"study/{name}.py" for name in ("pipeline", "plan", "tuning", "run", "plugins", "catalogue", "warm_start")
        ),
    ),
    Rule(EVERYTHING, ("ray",), exempt=("study/tuning.py", "study/workers.py", "study/cluster.py", "study/spot.py")),
    Rule(EVERYTHING, ("optuna",), exempt=(*SEARCHES, "search_spaces/*.py")),
    Rule((*(f"study/{name}.py" for name in TORCHLESS), "study/benchmarks/*.py"), ("torch",)),
    Rule(("search_spaces/*.py",), ("torch", "transformers", "analysis")),
    Rule(("analysis/**/*.py",), ("torch", "ray", "optuna", "transformers", "peft", "search_spaces")),
    Rule(
        ("analysis/**/*.py",),
        ("study",),
        allowed=tuple(
            f"study.{name}"
            for name in ("objectives", "store", "questions", "recovery", "metrics", "metric_trust", "aggregates")
        ),
    ),
    Rule(
        (
            *PLUGINS,
            *(
                f"study/{name}.py"
                for name in ("trial", "contracts", "scoring", "training", "vlm", "saliency", "pixels")
            ),
            *(
                f"study/{name}.py"
                for name in ("model_folder", "model_trial", "memory", "parallel", "chunks", "features", "deltas")
            ),
        ),
        ABOVE_A_TRIAL,
    ),
    Rule(EVERYTHING, ("lmms_eval",)),
    Rule(("study/**/*.py",), ("study.export", "study.general_utility"), exempt=("study/general_utility.py",)),
    Rule(("study/losses.py", "study/questions.py"), (*ABOVE_A_TRIAL, "study.trial", "study.contracts", "study.vlm")),
    *(Rule((f"study/{kind}/*.py",), tuple(f"study.{other}" for other in KINDS if other != kind)) for kind in KINDS),
]


def imported(root: Path, path: Path) -> set[str]:
    """The full name of everything that a file imports; `from a import b` is a.b."""
    package = path.relative_to(root).parent.parts
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                base = package[: len(package) - node.level + 1] if node.level else ()
                source = ".".join((*base, *([node.module] if node.module else ())))
                names |= {f"{source}.{alias.name}" for alias in node.names}
            case ast.Call(
                func=ast.Name("import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(str(name)), *_],
            ):
                names.add(name)
    return names


def within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def files(root: Path, patterns: Iterable[str]) -> set[Path]:
    return {path for pattern in patterns for path in root.glob(pattern)}


def violations(root: Path, rule: Rule) -> list[str]:
    return [
        f"{path.relative_to(root)} imports {name}"
        for path in sorted(files(root, rule.files) - files(root, rule.exempt))
        for name in sorted(imported(root, path))
        if within(name, rule.forbidden) and not within(name, rule.allowed)
    ]


def sibling_imports(root: Path) -> list[str]:
    """Plugins that import another plugin of their kind; a module with an underscore is there to be shared."""
    return [
        f"{path.relative_to(root)} imports {name}"
        for kind in KINDS
        for path in sorted(root.glob(f"study/{kind}/*.py"))
        for name in sorted(imported(root, path))
        if name.startswith(f"study.{kind}.") and not name.split(".")[2].startswith("_")
    ]


def graph(root: Path) -> dict[str, set[str]]:
    """Which project module imports which."""
    modules = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files(root, (f"{package}/**/*.py" for package in PACKAGES))
    }

    def owner(name: str) -> Iterator[str]:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        if name:
            yield name

    return {
        module: {target for name in imported(root, path) for target in owner(name)} for module, path in modules.items()
    }


def cycle(root: Path) -> list[str]:
    """One circle of imports, or nothing."""
    try:
        TopologicalSorter(graph(root)).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


@cache
def library_names() -> frozenset[str]:
    return frozenset({*sys.stdlib_module_names, *packages_distributions()} - {*PACKAGES, "tests"})


def shadows(root: Path) -> list[str]:
    """Modules that would hide a library when their folder comes first on sys.path, as study/ does for run.py."""
    return [
        f"{path.relative_to(root)} hides {path.stem}"
        for path in sorted(files(root, ("study/*", "tests/*")))
        if (path.suffix == ".py" or path.is_dir()) and path.stem in library_names()
    ]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_arrow(rule: Rule) -> None:
    assert violations(ROOT, rule) == []


def test_plugins_do_not_import_their_siblings() -> None:
    assert sibling_imports(ROOT) == []


def test_imports_have_no_circle() -> None:
    assert cycle(ROOT) == []


def test_no_module_hides_a_library() -> None:
    assert shadows(ROOT) == []


BLOCK = """
import sys
class Block:
    def find_spec(name, path=None, target=None):
        if name in {libraries}:
            raise ModuleNotFoundError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block)
"""


def imports_without(libraries: Iterable[str], modules: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Import modules in a fresh Python in which the libraries cannot be imported."""
    script = BLOCK.format(libraries=sorted(libraries)) + "".join(f"import {module}\n" for module in sorted(modules))
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


def test_trials_import_without_ray_and_optuna() -> None:
    plugins = {module for module in graph(ROOT) if within(module, (f"study.{kind}" for kind in KINDS))}
    done = imports_without(["ray", "optuna"], {"study.trial", *plugins})
    assert done.returncode == 0, done.stderr


def test_analysis_imports_without_the_libraries_that_make_its_rows() -> None:
    modules = {module for module in graph(ROOT) if within(module, ["analysis"])}
    done = imports_without(["torch", "ray", "optuna", "transformers", "peft"], modules)
    assert done.returncode == 0, done.stderr


def test_a_blocked_library_is_noticed() -> None:
    done = imports_without(["pandas"], ["pandas"])
    assert done.returncode != 0
    assert "pandas is blocked" in done.stderr


def plant(root: Path, **sources: str) -> None:
    """Write modules, `a__b` for a/b.py."""
    for name, source in sources.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("study__scoring", "import ray.tune"),
        ("study__vlm", "def f():\n    from study import tuning"),
        ("study__trial", "from .run import main"),
        ("study__questions", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor"),
        ("study__benchmarks__toy", "import torch"),
        ("study__attacks__none", "from ..methods import vkd"),
        ("study__contracts", "from importlib import import_module\nimport_module('search_spaces.npo')"),
        ("analysis__table", "from study.vlm import VLM"),
        ("analysis__table", "import study.trial"),
        ("study__pipeline", "import optuna"),
    ],
)
def test_a_planted_arrow_is_found(tmp_path: Path, name: str, source: str) -> None:
    plant(tmp_path, **{name: source})
    assert [v for rule in RULES for v in violations(tmp_path, rule)] != []


def test_allowed_imports_are_not_found(tmp_path: Path) -> None:
    plant(
        tmp_path,
        study__tuning="import ray, optuna, search_spaces.npo",
        study__methods__npo="import torch\nfrom study import losses\nfrom . import _shared",
        study__benchmarks__toy="import rayleigh, torchlike",
        search_spaces__npo="import optuna\nfrom study.methods.npo import NPO",
        analysis__table="from study.store import rows\nfrom study import objectives",
    )
    assert [v for rule in RULES for v in violations(tmp_path, rule)] == []
    assert sibling_imports(tmp_path) == []
    assert cycle(tmp_path) == []


def test_a_planted_sibling_import_is_found(tmp_path: Path) -> None:
    plant(tmp_path, study__methods__a="from . import b", study__methods__b="")
    assert sibling_imports(tmp_path) == ["study/methods/a.py imports study.methods.b"]


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from study.a import A"
    plant(tmp_path, study__a="from study import b", study__b="import study.c", study__c=typed)
    assert set(cycle(tmp_path)) == {"study.a", "study.b", "study.c"}


@pytest.mark.parametrize("name", ["study__peft", "study__statistics", "tests__ray"])
def test_a_planted_shadow_is_found(tmp_path: Path, name: str) -> None:
    plant(tmp_path, **{name: "", "study__scoring": ""})
    assert shadows(tmp_path) == [f"{name.replace('__', '/')}.py hides {name.split('__')[1]}"]
