"""What every plug-in owes and what a reader finds where it says nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from inspect import get_annotations
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from study.base_models.hf import Hf
from study.contracts import Attack, BaseModel, Method, Request, Source, Stage
from study.core.hashing import canonical
from study.core.plugins import Kind, find, known
from study.core.terms import Part
from study.data.benchmark import Benchmark, Question
from study.methods.npo import NPO
from study.model.vlm import VLM
from study.training.schedule import Schedule
from tests import ROOT

BASES: dict[Kind, type] = {"methods": Method, "attacks": Attack, "base_models": BaseModel, "benchmarks": Source}


@dataclass(frozen=True)
class PlainMethod(Method):
    """Says nothing of itself."""

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        return vlm


@dataclass(frozen=True)
class PlainAttack(Attack):
    """Says nothing of itself."""

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        yield Stage(1, vlm, questions)


@dataclass(frozen=True)
class PlainModel(BaseModel):
    """Says nothing of itself."""

    def __call__(self, folder: Path) -> Path:
        return folder


@dataclass(frozen=True)
class PlainSource(Source):
    """Says nothing of itself."""

    def __call__(self, folder: Path) -> Benchmark:
        raise AssertionError("not read here")


# ---- the bases -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in BASES for name in known(kind)])
def test_every_plug_in_has_its_base(kind: Kind, name: str) -> None:
    assert issubclass(find(kind, name), BASES[kind])


def test_what_says_nothing_has_the_defaults(request_: Request) -> None:
    method, attack, model, source = PlainMethod(), PlainAttack(), PlainModel(), PlainSource()
    assert (method.modality, method.trains, method.schedule, method.oracle) == ("all", (), None, False)
    assert (method.changes, method.trains_adapters) == ((), False)
    assert (attack.in_chain, attack.trains, attack.parts, attack.changes) == ("anywhere", (), (), ())
    assert attack.given(request_) == ()
    assert attack.asks == ("classification",)
    assert (model.path, model.hub, model.dtype, model.attention, model.quantized) == (None, "", "float32", "sdpa", "")
    assert source.train_split == Path()
    for plain in (method, attack, model, source):
        assert canonical(plain) == {"type": type(plain).__name__}  # no default enters a key


@pytest.fixture
def request_(benchmark: Benchmark, tmp_path: Path) -> Request:
    def nobody() -> VLM:
        raise AssertionError("no model is needed")

    return Request(benchmark.split(10), "visual", (), 0, tmp_path, nobody, nobody, dict)


@dataclass(frozen=True)
class FoundModel(PlainModel):
    """A model in a folder, of a plug-in that knows nothing of the hub."""

    path: Path = Path("here")


def test_a_model_can_be_had_elsewhere(tmp_path: Path) -> None:
    commit = "0" * 40
    assert FoundModel().at(tmp_path) == FoundModel(tmp_path)
    assert Hf(hub="owner/model", revision=commit, dtype="float32").at(tmp_path) == Hf(tmp_path, dtype="float32")


def test_what_trains_changes_it() -> None:
    parts: tuple[Part, ...] = ("vision", "llm")
    assert NPO(trains=parts).changes == parts
    assert NPO(schedule=Schedule(lora_rank=2)).trains_adapters
    assert not NPO().trains_adapters


def test_a_plug_in_without_a_call_is_none() -> None:
    for base in BASES.values():
        with pytest.raises(TypeError, match="abstract"):
            base()


# ---- choices -------------------------------------------------------------------------------------------------------
def choices() -> Iterator[Any]:
    """Every field of a method or an attack that is one of several literals."""
    for kind in ("methods", "attacks"):
        for name in known(kind):
            plugin = find(kind, name)
            annotations = get_type_hints(plugin)
            for field in (f.name for f in fields(plugin)):
                if get_origin(annotations[field]) is Literal:
                    yield pytest.param(plugin(), field, get_args(annotations[field]), id=f"{name} {field}")


@pytest.mark.parametrize(("plugin", "field", "allowed"), list(choices()))
def test_a_wrong_choice_is_named_with_the_right_ones(plugin: Any, field: str, allowed: tuple[Any, ...]) -> None:
    """Of a plug-in with checks of its own too."""
    with pytest.raises(ValueError, match="choose among") as caught:
        replace(plugin, **{field: "none of them"})
    assert str(caught.value) == f"{field}='none of them': choose among {', '.join(map(str, allowed))}"


def test_a_base_model_says_why_a_choice_is_none() -> None:
    with pytest.raises(ValueError, match="dtype='float16': use float32 or bfloat16; in float16 AdamW divides"):
        Hf(dtype="float16")  # type: ignore[arg-type]


# ---- who asks ------------------------------------------------------------------------------------------------------
CONTRACTS = {part for base in BASES.values() for part in base.__mro__}
STATED = {name for part in CONTRACTS for name in {*vars(part), *get_annotations(part)} if not name.startswith("_")}


def guesses(source: str) -> list[str]:
    """Attributes of a contract that are asked for by name, as though they might not be there."""
    return [
        str(name.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")
        for name in node.args[1:2]
        if isinstance(name, ast.Constant) and name.value in STATED
    ]


@pytest.mark.slow
def test_nobody_guesses_at_what_a_contract_states() -> None:
    paths = [path for room in ("study", "search_spaces", "analysis", "tests") for path in ROOT.glob(f"{room}/**/*.py")]
    found = {str(path.relative_to(ROOT)): guesses(path.read_text(encoding="utf-8")) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("name", ["oracle", "changes", "trains", "in_chain", "modality", "path", "train_split"])
def test_a_planted_guess_is_found(name: str) -> None:
    assert guesses(f"getattr(plugin, {name!r}, None)\nhasattr(plugin, {name!r})\nplugin.{name}") == [name] * 2
