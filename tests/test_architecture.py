"""Which room may import which. Imports under TYPE_CHECKING and inside functions count too."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from study.core.plugins import PACKAGES as PLUGIN_PACKAGES
from tests import ROOT

PACKAGES = ("study", "search_spaces", "analysis")
PLUGINS = tuple(PLUGIN_PACKAGES.values())

FLOORS = (
    ("study.__main__",),
    ("study.run",),
    ("study.command_line", "study.status"),
    ("study.presets", "study.stages", "study.write_docs", "study.general_utility", "study.export_optuna"),
    (
        "study.settings",
        "search_spaces",
        *(f"study.{name}" for name in ("doctor", "export", "verify", "evidence", "purge")),
    ),
    ("study.methods", "study.attacks", "study.experiment"),
    ("study.evaluation", "study.benchmarks", "study.base_models", "analysis"),
    ("study.contracts",),
    ("study.training",),
    ("study.model", "study.metrics"),
    ("study.engine", "study.data"),
    ("study.core",),
)
"""The rooms, top floor first: a room imports only rooms on the floors below its own."""
ANALYSIS_IMPORTS = ("study.core", "study.metrics")
"""All of the study that the analysis of its rows may import."""
ONLY_IN = {
    "ray": ("study.engine",),
    "optuna": ("study.engine", "search_spaces", "analysis", "study.export_optuna"),
    "lmms_eval": (),
    "analysis": (
        *("study.stages", "study.status", "study.export_optuna", "study.evidence", "study.export"),
        "analysis",
    ),
    "study.export": ("study.general_utility",),
}
"""Who imports a library, the analysis or a command, where not everybody may whose floor is above."""
TORCHLESS = ("study.core", "study.data", "study.metrics", "study.benchmarks", "search_spaces", "analysis")


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


def modules(root: Path) -> dict[str, Path]:
    """Every module of the project and its file."""
    paths = (path for package in PACKAGES for path in root.glob(f"{package}/**/*.py"))
    return {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def room_of(name: str) -> str | None:
    """The room that a module or something in it belongs to; None for a library and for the package `study` itself."""
    return next((room for floor in FLOORS for room in floor if within(name, [room])), None)


def floor_of(room: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if room in floor)


def upward(root: Path) -> list[str]:
    """Imports of a room that is not on a floor below."""
    return [
        f"{path.relative_to(root)} imports {name}"
        for module, path in sorted(modules(root).items())
        if (room := room_of(module))
        for name in sorted(imported(root, path))
        if (other := room_of(name)) and other != room and floor_of(other) <= floor_of(room)
    ]


def misplaced(root: Path) -> list[str]:
    """Libraries that are imported where they must not be, and what the analysis may not import."""
    return [
        f"{path.relative_to(root)} imports {name}"
        for module, path in sorted(modules(root).items())
        for name in sorted(imported(root, path))
        if any(within(name, [library]) and not within(module, rooms) for library, rooms in ONLY_IN.items())
        or (within(name, ["torch", "transformers", "peft"]) and within(module, TORCHLESS))
        or (within(module, ["analysis"]) and within(name, ["study"]) and not within(name, ANALYSIS_IMPORTS))
    ]


def roomless(root: Path) -> list[str]:
    """Modules that belong to no room: a new file directly in `study/` has to be given a floor."""
    return sorted(module for module in modules(root) if module not in ("study", "analysis") and not room_of(module))


def sibling_imports(root: Path) -> list[str]:
    """Plug-ins that import another plug-in, of whatever kind; a module with an underscore is there to be shared."""
    return [
        f"{path.relative_to(root)} imports {name}"
        for package in PLUGINS
        for path in sorted(root.glob(f"{package.replace('.', '/')}/**/*.py"))
        for name in sorted(imported(root, path))
        for other in PLUGINS
        if name.startswith(f"{other}.")
        and (root / f"{'/'.join(name.split('.')[: other.count('.') + 2])}.py").exists()
        and not name.removeprefix(f"{other}.").startswith("_")
    ]


def graph(root: Path) -> dict[str, set[str]]:
    """Which project module imports which."""
    known = modules(root)

    def owner(name: str) -> Iterator[str]:
        while name and name not in known:
            name = name.rpartition(".")[0]
        if name:
            yield name

    return {module: {t for name in imported(root, path) for t in owner(name)} for module, path in known.items()}


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
        for path in sorted({*root.glob("study/*"), *root.glob("tests/*")})
        if (path.suffix == ".py" or path.is_dir()) and path.stem in library_names()
    ]


@pytest.mark.slow
def test_a_room_imports_only_rooms_below_it() -> None:
    assert upward(ROOT) == []


def test_every_module_has_a_room() -> None:
    assert roomless(ROOT) == []


def test_libraries_are_imported_where_they_belong() -> None:
    assert misplaced(ROOT) == []


def test_plugins_do_not_import_their_siblings() -> None:
    assert sibling_imports(ROOT) == []


def test_imports_have_no_circle() -> None:
    assert cycle(ROOT) == []


def test_no_module_hides_a_library() -> None:
    assert shadows(ROOT) == []


def test_every_room_says_in_one_place_what_it_is() -> None:
    rooms = [path for path in (ROOT / "study").iterdir() if path.is_dir() and path.name != "__pycache__"]
    for room in rooms:
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))), room.name


BLOCK = """
import sys
class Block:
    def find_spec(name, path=None, target=None):
        if name in {libraries}:
            raise ModuleNotFoundError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block)
"""


def imports_without(libraries: Iterable[str], names: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Import modules in a fresh Python in which the libraries cannot be imported."""
    script = BLOCK.format(libraries=sorted(libraries)) + "".join(f"import {name}\n" for name in sorted(names))
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_trials_import_without_ray_and_optuna() -> None:
    searches = tuple(f"study.experiment.{kind}_search" for kind in ("method", "attack"))
    names = {m for m in modules(ROOT) if within(m, (*PLUGINS, "study.experiment")) and m not in searches}
    done = imports_without(["ray", "optuna"], names)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_stages_import_neither_ray_nor_optuna() -> None:
    """Ray reads its settings when it is imported, and both take their time: a plan does without."""
    done = imports_without(["ray", "optuna"], ["study.run", "study.stages.pipeline"])
    assert done.returncode == 0, done.stderr


SLOW = ("ray", "transformers", "peft", "scipy", "nltk", "torch.distributed.tensor", "torch.distributed.fsdp")
"""What takes a driver seconds to import and serves workers alone, or a report."""


def without(libraries: Iterable[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a fresh Python in which the libraries cannot be imported."""
    block = BLOCK.format(libraries=sorted(libraries))
    script = f"{block}import study.run\nsys.argv[1:] = {list(arguments)}\nsys.exit(study.run.main())"
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("preset", ["tiny", "qwen2_5_vl_7b"])
def test_help_needs_none_of_the_libraries_that_models_need(preset: str) -> None:
    done = without([*SLOW, "torch", "optuna", "pandas"], preset, "--help")
    assert done.returncode == 0, done.stderr
    assert "--forget-ratios" in done.stdout


@pytest.mark.slow
def test_a_plan_needs_torch_and_no_library_that_is_slower(tmp_path: Path) -> None:
    """Methods and attacks are torch code, and a plan names their settings."""
    done = without(SLOW, "smoke", "--dry-run", "--study-dir", str(tmp_path / "study"))
    assert done.returncode == 0, done.stderr
    assert without(["torch"], "smoke", "--dry-run", "--study-dir", str(tmp_path / "study")).returncode != 0


def test_analysis_imports_without_the_libraries_that_make_its_rows() -> None:
    names = {module for module in modules(ROOT) if within(module, ["analysis"])}
    done = imports_without(["torch", "ray", "optuna", "transformers", "peft"], names)
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
        ("study__model__vlm", "def f():\n    from study.stages import pipeline"),
        ("study__experiment__trial", "from ..run import main"),
        (
            "study__data__picture",
            "import typing\nif typing.TYPE_CHECKING:\n    import study.model.vlm",
        ),
        ("study__attacks__nothing", "from ..methods import vkd"),
        ("study__contracts", "from importlib import import_module\nimport_module('search_spaces.npo')"),
        ("study__engine__jobs", "import study.experiment.trial"),
    ],
)
def test_a_planted_upward_arrow_is_found(tmp_path: Path, name: str, source: str) -> None:
    plant(tmp_path, **{name: source})
    assert len(upward(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("study__evaluation__scoring", "import ray.tune"),
        ("study__benchmarks__toy", "import torch"),
        ("study__stages__pipeline", "import optuna"),
        ("study__metrics__registry", "from optuna.importance import PedAnovaImportanceEvaluator"),
        ("study__data__picture", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor"),
        ("analysis__table", "from study.data.facts import facts"),
        ("study__methods__npo", "from analysis import report"),
        ("study__stages__pipeline", "from study.export import export"),
        ("analysis__table", "import study.contracts"),
    ],
)
def test_a_planted_library_is_found(tmp_path: Path, name: str, source: str) -> None:
    plant(tmp_path, **{name: source})
    assert len(misplaced(tmp_path)) == 1


def test_allowed_imports_are_not_found(tmp_path: Path) -> None:
    plant(
        tmp_path,
        study__engine__tune_runner="import ray, optuna",
        study__stages__search="import search_spaces.npo",
        study__methods__npo="import torch\nfrom study.training import losses\nfrom . import _shared",
        study__benchmarks__toy="import rayleigh, torchlike",
        search_spaces__npo="import optuna\nfrom study.methods.npo import NPO",
        analysis__table="from study.core.rows import read_rows\nfrom study.metrics import objectives",
    )
    assert upward(tmp_path) == misplaced(tmp_path) == roomless(tmp_path) == []
    assert sibling_imports(tmp_path) == []
    assert cycle(tmp_path) == []


def test_a_planted_module_without_a_room_is_found(tmp_path: Path) -> None:
    plant(tmp_path, study__leftovers="")
    assert roomless(tmp_path) == ["study.leftovers"]


@pytest.mark.parametrize(
    ("name", "source", "other"),
    [
        ("study__methods__a", "from . import b", "study.methods.b"),
        ("study__methods__a", "from study.benchmarks.toy import Toy", "study.benchmarks.toy.Toy"),
        ("study__attacks___shared__a", "import study.base_models.toy", "study.base_models.toy"),
        ("study__methods__a", "from study.model.families.toy import Toy", "study.model.families.toy.Toy"),
    ],
)
def test_a_planted_sibling_import_is_found(tmp_path: Path, name: str, source: str, other: str) -> None:
    toys = ("study__methods__b", "study__benchmarks__toy", "study__base_models__toy", "study__model__families__toy")
    plant(tmp_path, **{name: source}, **dict.fromkeys(toys, ""))
    path = "/".join(name.replace("___", "__/_").replace("__/", "/").split("__"))
    assert sibling_imports(tmp_path) == [f"{path}.py imports {other}"]


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from study.a import A"
    plant(tmp_path, study__a="from study import b", study__b="import study.c", study__c=typed)
    assert set(cycle(tmp_path)) == {"study.a", "study.b", "study.c"}


@pytest.mark.parametrize("name", ["study__peft", "study__statistics", "tests__ray"])
def test_a_planted_shadow_is_found(tmp_path: Path, name: str) -> None:
    plant(tmp_path, **{name: "", "study__scoring": ""})
    assert shadows(tmp_path) == [f"{name.replace('__', '/')}.py hides {name.split('__')[1]}"]
