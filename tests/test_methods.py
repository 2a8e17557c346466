"""Every method keeps the contract, and the loss of each is the formula in its docstring."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from study.contracts import Request
from study.methods.gradient_ascent import GradientAscent
from study.methods.gradient_difference import GradientDifference
from study.methods.kl_minimization import KLMinimization
from study.methods.none import NoMethod
from study.methods.npo import NPO
from study.methods.prompting import INSTRUCTIONS, Prompting
from study.methods.vkd import VKD
from study.packing import Batch, Group, Prompt, logits, pack
from study.plugins import find, known, name_of
from study.questions import Benchmark
from study.store import canonical, content_key
from study.training import Schedule
from study.vlm import PARTS, VLM, Part, load, restored
from tests.small import (
    QUICK,
    changed,
    plain_logits,
    plain_logps,
    quick,
    request_on,
    same_bits,
    snapshot,
    trained,
    variants,
)

VARIANTS = [
    pytest.param(variant, id=f"{name} {' '.join(sorted(trained(variant)))}")
    for name in known("methods")
    for variant in variants(find("methods", name)())
]
FROZEN_LLM = [param for param in VARIANTS if "llm" not in trained(param.values[0])]


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path / "cache", tiny_folder)


# ---- the contract ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", known("methods"))
def test_a_method_is_a_value(name: str) -> None:
    """Frozen, with a default for every field, equal by content, and fit for JSON and for another process."""
    method = find("methods", name)()
    assert dataclasses.is_dataclass(method)
    for field in dataclasses.fields(method):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, field.name, getattr(method, field.name))
    assert json.loads(json.dumps(canonical(method))) == canonical(method)
    assert pickle.loads(pickle.dumps(method)) == method == find("methods", name)()
    assert hash(method) == hash(find("methods", name)())
    assert name_of(method) == name


@pytest.mark.parametrize("name", known("methods"))
def test_every_field_is_in_the_key(name: str) -> None:
    """A result that depends on a field is never taken for that of another value."""
    method = find("methods", name)()
    keys = {content_key(method)}
    for field in dataclasses.fields(method):
        other = dataclasses.replace(method)
        object.__setattr__(other, field.name, "another value")
        keys.add(content_key(other))
    assert len(keys) == 1 + len(dataclasses.fields(method))


@pytest.mark.parametrize("method", VARIANTS)
def test_exactly_the_declared_parts_are_trained(method: Any, tiny: VLM, request_: Request) -> None:
    """Every other tensor of the model is what it was, bit for bit."""
    before = snapshot(tiny)
    method(tiny, request_)
    moved = changed(before, snapshot(tiny))
    assert moved <= set(tiny.trainable(tuple(trained(method)))) | {"lm_head.weight"}  # tied to the embedding
    assert {tiny.part_of(name) for name in moved} == trained(method)


@pytest.mark.parametrize("method", FROZEN_LLM)
def test_text_is_bit_identical_while_the_llm_is_frozen(method: Any, tiny: VLM, request_: Request) -> None:
    groups = [Group(None, (Prompt(x.prompt, (x.answer,)),)) for x in request_.split.lessons if x.picture is None][::40]
    before = logits(tiny, pack(tiny, groups))
    after = method(tiny, request_).with_instruction("")
    assert torch.equal(logits(after, pack(after, groups)), before)


def test_text_changes_once_the_llm_is_trained(tiny: VLM, request_: Request) -> None:
    """The test above could fail."""
    groups = [Group(None, (Prompt(x.prompt, (x.answer,)),)) for x in request_.split.lessons if x.picture is None][::40]
    before = logits(tiny, pack(tiny, groups))
    after = quick(GradientAscent(trains=("llm",)))(tiny, request_)
    assert not torch.equal(logits(after, pack(after, groups)), before)


@pytest.mark.parametrize("method", VARIANTS)
def test_a_method_is_repeatable(method: Any, tiny_folder: Path, request_: Request) -> None:
    """The same seed gives the same bits, another one gives others; the state of torch's generator does not matter."""
    found = []
    for state, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(state)
        vlm = load(tiny_folder)
        method(vlm, dataclasses.replace(request_, seed=seed))
        found.append(snapshot(vlm))
    assert same_bits(found[0], found[1])
    assert same_bits(found[0], found[2]) == (not trained(method))


@pytest.mark.parametrize("method", VARIANTS)
def test_what_is_lent_out_comes_back(method: Any, tiny: VLM, request_: Request) -> None:
    before = snapshot(tiny)
    with restored(tiny) as (vlm, _):
        method(vlm, request_)
        assert same_bits(before, snapshot(vlm)) == (not trained(method))
    assert same_bits(before, snapshot(tiny))
    assert not tiny.model.training
    assert not any(p.requires_grad or p.grad is not None for p in tiny.model.parameters())


@pytest.mark.parametrize("method", VARIANTS)
def test_the_goal_full_works_too(
    method: Any, tiny: VLM, benchmark: Benchmark, tiny_folder: Path, tmp_path: Path
) -> None:
    full = request_on(benchmark, tmp_path, tiny_folder, goal="full")
    before = snapshot(tiny)
    unlearned = method(tiny, full)
    assert {tiny.part_of(name) for name in changed(before, snapshot(unlearned))} == trained(method)


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        (GradientDifference, "forget_weight", -0.5),
        (GradientDifference, "retain_weight", math.nan),
        (KLMinimization, "kl_weight", -1.5),
        (KLMinimization, "kl_weight", math.nan),
        (NPO, "beta", 0.0),
        (NPO, "beta", math.nan),
        (NPO, "retain_weight", -2.0),
        (NPO, "retain_weight", math.nan),
        (Prompting, "wording", "please"),
        (Prompting, "repeats", 0),
        (VKD, "teacher", "nobody"),
        (VKD, "layers", "most"),
        (VKD, "distance", "far"),
        (VKD, "trains", ("vision", "llm")),
        (VKD, "trains", ()),
        (VKD, "erase_weight", -1.0),
        (VKD, "keep_weight", -1.0),
        (VKD, "forget_weight", math.nan),
        (VKD, "retain_weight", -0.1),
        (VKD, "saliency_threshold", -0.1),
        (VKD, "augment", 1.5),
        (VKD, "prune", 0.0),
        (VKD, "keep_ratio", 0),
        (VKD, "beta", -1.0),
    ],
)
def test_a_wrong_hyperparameter_is_named_with_its_value(method: Callable[..., Any], field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        method(**{field: value})
    assert f"{field}={value!r}" in str(caught.value)


# ---- the losses ------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Taken:
    """What a method asked the training loop to do, with the gradient of its loss at a point away from its start."""

    before: VLM
    now: VLM
    groups: list[list[Group]]
    loss: Tensor
    gradient: dict[str, Tensor]


@pytest.fixture
def take(tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Taken]:
    """Calls a method of which the first loss is taken after the weights were moved a little."""

    def taken(method: Any) -> Taken:
        found: list[Taken] = []
        groups: list[list[Group]] = []
        module = f"study.methods.{name_of(method)}"

        def record(vlm: VLM, packed: Sequence[Group]) -> Batch:
            groups.append(list(packed))
            return pack(vlm, packed)

        def once(vlm: VLM, parts: Sequence[Part], schedule: Schedule, loss: Callable[[int], Tensor]) -> None:
            generator = torch.Generator().manual_seed(7)
            weights = vlm.trainable(parts)
            for weight in weights.values():
                weight.data.add_(0.05 * torch.randn(weight.shape, generator=generator))
                weight.requires_grad_(True)
            value = loss(0)
            found.append(Taken(before, vlm, groups, value.detach(), gradient(value, weights)))

        before = tiny.copy()
        monkeypatch.setattr(f"{module}.pack", record)
        monkeypatch.setattr(f"{module}.train", once)
        method(tiny, request_)
        return found[0]

    return taken


def gradient(value: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient by name; zero where the value does not depend on a weight."""
    found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    return {n: torch.zeros_like(w) if g is None else g for (n, w), g in zip(weights.items(), found, strict=True)}


def batches(taken: Taken, request: Request) -> tuple[list[Group], list[Group]]:
    """The forget batch and the retain batch that a loss was made of; the latter is empty if there was none."""
    people = {lesson.picture: lesson.person for lesson in request.split.lessons if lesson.picture}
    forget: list[Group] = []
    retain: list[Group] = []
    for groups in taken.groups:
        gone = {people[g.picture] in request.split.forget_people for g in groups if g.picture}
        assert len(gone) == 1
        (forget if gone == {True} else retain).extend(groups)
    return forget, retain


def cross_entropy(vlm: VLM, groups: Sequence[Group]) -> Tensor:
    return -torch.cat(plain_logps(vlm, groups)).mean()


def check(taken: Taken, formula: Tensor, parts: Sequence[Part] = PARTS) -> None:
    torch.testing.assert_close(taken.loss, formula.detach(), rtol=1e-4, atol=1e-5)
    wanted = gradient(formula, taken.now.trainable(parts))
    assert taken.gradient.keys() == wanted.keys()
    assert max(float(g.abs().max()) for g in wanted.values()) > 1e-3
    for name, value in wanted.items():
        torch.testing.assert_close(taken.gradient[name], value, rtol=1e-3, atol=1e-5, msg=name)


SMALL = dataclasses.replace(QUICK, texts=0, lessons_per_picture=2)


def test_gradient_ascent_is_its_formula(take: Callable[[Any], Taken], request_: Request) -> None:
    taken = take(quick(GradientAscent(), SMALL))
    forget, retain = batches(taken, request_)
    assert not retain
    check(taken, -cross_entropy(taken.now, forget))


def test_gradient_difference_is_its_formula(take: Callable[[Any], Taken], request_: Request) -> None:
    taken = take(quick(GradientDifference(forget_weight=0.3, retain_weight=2.0), SMALL))
    forget, retain = batches(taken, request_)
    check(taken, 2.0 * cross_entropy(taken.now, retain) - 0.3 * cross_entropy(taken.now, forget))


def test_kl_minimization_is_its_formula(take: Callable[[Any], Taken], request_: Request) -> None:
    """The divergence is that from the model before unlearning, over answer tokens and nothing else."""
    taken = take(quick(KLMinimization(kl_weight=3.0), SMALL))
    forget, retain = batches(taken, request_)
    with torch.no_grad():
        vanilla = torch.cat([rows for rows, _ in plain_logits(taken.before, retain)]).softmax(-1)
    model = torch.cat([rows for rows, _ in plain_logits(taken.now, retain)]).log_softmax(-1)
    divergence = (vanilla * (vanilla.log() - model)).sum() / len(model)
    assert float(divergence.detach()) > 0.01
    check(taken, 3.0 * divergence - cross_entropy(taken.now, forget))


@pytest.mark.parametrize("retain_weight", [0.0, 0.7])
def test_npo_is_its_formula(take: Callable[[Any], Taken], request_: Request, retain_weight: float) -> None:
    """Whole answers, log-probabilities summed, against the model before unlearning."""
    taken = take(quick(NPO(beta=0.4, retain_weight=retain_weight), SMALL))
    forget, retain = batches(taken, request_)
    with torch.no_grad():
        before = torch.stack([logp.sum() for logp in plain_logps(taken.before, forget)])
    now = torch.stack([logp.sum() for logp in plain_logps(taken.now, forget)])
    formula = 2 / 0.4 * torch.log(1 + (now - before).exp() ** 0.4).mean()
    assert bool(retain) == bool(retain_weight)
    check(taken, formula + retain_weight * cross_entropy(taken.now, retain) if retain else formula)


@pytest.mark.parametrize("method", [NPO, KLMinimization])
@pytest.mark.parametrize("trains", [PARTS, ("projector",)])
def test_the_model_before_unlearning_does_not_move(
    method: Any, trains: tuple[Part, ...], tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frozen copy has vanilla's bits until the last step."""
    copies: list[VLM] = []
    frozen_copy = VLM.frozen_copy

    def kept(self: VLM, parts: Sequence[Part] = PARTS) -> VLM:
        copies.append(frozen_copy(self, parts))
        return copies[-1]

    monkeypatch.setattr(VLM, "frozen_copy", kept)
    before = snapshot(tiny)
    quick(method(trains=trains))(tiny, request_)
    assert len(copies) == 1
    assert same_bits(before, snapshot(copies[0]))
    assert not same_bits(before, snapshot(tiny))


@pytest.mark.parametrize("method", [GradientAscent(), GradientDifference(), NPO(), KLMinimization()])
def test_the_forget_loss_rises(method: Any, tiny: VLM, request_: Request) -> None:
    groups = [Group(x.picture, (Prompt(x.prompt, (x.answer,)),)) for x in request_.forget[::20]]
    before = float(cross_entropy(tiny, groups))
    quick(method, dataclasses.replace(QUICK, steps=6))(tiny, request_)
    assert float(cross_entropy(tiny, groups)) > before + 0.02


def test_no_method_is_the_identity(tiny: VLM, request_: Request) -> None:
    assert NoMethod()(tiny, request_) is tiny


@pytest.mark.parametrize("wording", list(INSTRUCTIONS))
def test_prompting_instructs_and_changes_no_weight(wording: Any, tiny: VLM, request_: Request) -> None:
    """The instruction stands in front of every prompt; dropping it gives everything back."""
    instructed = Prompting(wording, repeats=2)(tiny, request_)
    assert instructed.model is tiny.model
    said = INSTRUCTIONS[Prompting(wording).wording]
    assert instructed.instruction == f"{said} {said}"
    assert len(instructed.prompt_ids("Who is this person?", True)) > len(tiny.prompt_ids("Who is this person?", True))
    dropped = instructed.with_instruction("")
    assert dropped.prompt_ids("Who is this person?", True) == tiny.prompt_ids("Who is this person?", True)
