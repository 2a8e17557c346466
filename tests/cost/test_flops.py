"""What training and scoring cost at the shapes of LLaVA-1.5-7B, against plain formulas, bounds and docs/cost.md."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from study.contracts import Request
from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark
from study.model.loading import load
from study.model.packing import Group, Prompt, logits, pack
from study.model.vlm import VLM
from tests import ROOT
from tests.cost.flops import ANSWER, PACKED, REGIMES, Cost, count, pixels, samples
from tests.cost.llava import llava
from tests.cost.methods import METHODS, Name, request, step_cost

BY_KEY = {regime.key: regime for regime in REGIMES}
TOKENS = 672
PAGE = ROOT / "docs" / "cost.md"


@cache
def empty() -> VLM:
    return llava("meta")


@cache
def cost(key: str) -> Cost:
    return count(empty(), BY_KEY[key])


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Request:
    return request(empty(), tmp_path_factory.mktemp("asked"))


@pytest.fixture
def llm_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("the LLM was called")

    monkeypatch.setattr(empty().model.model.language_model, "forward", forbidden)


# ---- by hand: weights, and operations of a forward ---------------------------------------------------------------
PATCHES, WIDTH, WIDE, SEEN, READ = 576, 1024, 4096, 577, 23
CONVOLUTION = 2 * PATCHES * WIDTH * 3 * 14 * 14
VISION_ATTENTION = 2 * 2 * SEEN * SEEN * WIDTH
VISION = CONVOLUTION + READ * (2 * SEEN * (4 * WIDTH**2 + 2 * WIDTH * 4096) + VISION_ATTENTION)
PROJECTOR = 2 * PATCHES * (WIDTH * WIDE + WIDE**2)
LAYER = 4 * WIDE**2 + 3 * WIDE * 11_008
HEAD = 32_064 * WIDE


def linear(tokens: int) -> int:
    """Of the LLM's linear layers; the head reads the tokens that predict answers alone."""
    return 2 * 32 * tokens * LAYER + 2 * ANSWER * HEAD


def attention(tokens: int) -> int:
    return 32 * 2 * 2 * tokens * tokens * WIDE


def test_the_shapes_are_those_of_llava() -> None:
    tower = 24 * (4 * (WIDTH**2 + WIDTH) + 2 * WIDTH * 4096 + 4096 + WIDTH + 4 * WIDTH)
    ends = WIDTH + WIDTH * 3 * 14 * 14 + SEEN * WIDTH + 4 * WIDTH
    sizes = {
        "vision": tower + ends,
        "projector": WIDTH * WIDE + WIDE + WIDE**2 + WIDE,
        "llm": 32 * (LAYER + 2 * WIDE) + WIDE + 2 * HEAD,
    }
    found = dict.fromkeys(PARTS, 0)
    for name, weight in empty().model.named_parameters():
        found[empty().part_of(name)] += weight.numel()
    assert found == sizes
    assert sum(sizes.values()) == 7_063_427_072  # what llava-hf/llava-1.5-7b-hf says of itself
    assert {weight.device.type for weight in empty().model.parameters()} == {"meta"}


def test_a_sample_has_the_tokens_it_is_said_to_have() -> None:
    assert empty().image_tokens == PATCHES
    one, packed = samples(empty(), 1), samples(empty(), 2, PACKED)
    assert one.input_ids.shape == (1, TOKENS)
    assert (len(one.source), len(packed.source)) == (ANSWER, 2 * PACKED * ANSWER)
    shared = TOKENS * PACKED - packed.input_ids.shape[1]
    assert PATCHES * (PACKED - 1) <= shared < (PATCHES + 8) * (PACKED - 1)


@pytest.mark.slow
def test_distillation_costs_what_can_be_counted_by_hand() -> None:
    """Forward, and twice as much backward: for weights and for what they read, which for the first is the picture."""
    step = 3 * (VISION + PROJECTOR) - CONVOLUTION
    assert cost("distilled").tflop * 1e12 == step
    assert cost("recomputed").tflop * 1e12 == step + VISION + PROJECTOR


@pytest.mark.slow
def test_training_through_a_frozen_llm_has_no_gradient_of_its_weights() -> None:
    visual = 3 * (VISION + PROJECTOR) - CONVOLUTION
    assert cost("through").tflop * 1e12 == 2 * linear(TOKENS) + 3 * attention(TOKENS) + visual
    assert cost("full").tflop * 1e12 == 3 * linear(TOKENS) + 3 * attention(TOKENS) + visual


@pytest.mark.slow
def test_a_reference_model_costs_its_forward() -> None:
    forward = linear(TOKENS) + attention(TOKENS) + VISION + PROJECTOR
    assert (cost("reference").tflop - cost("full").tflop) * 1e12 == pytest.approx(forward, rel=1e-9)


# ---- bounds --------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "most", "passes"),
    [("distilled", 1.2, 0), ("recomputed", 1.6, 0), ("through", 20, 1), ("lora", 19, 1), ("full", 28.5, 1),
     ("reference", 38, 2)],
)  # fmt: skip
def test_a_step_stays_within_its_bound(key: str, most: float, passes: int) -> None:
    assert 0.9 * most < cost(key).tflop <= most
    assert cost(key).passes == passes


@pytest.mark.slow
def test_packed_questions_cost_a_quarter() -> None:
    assert cost("packed").tflop <= cost("through").tflop / 4
    assert cost("scored").tflop <= cost("released").tflop / 5


@pytest.mark.slow
@pytest.mark.usefixtures("llm_forbidden")
@pytest.mark.parametrize("key", ["distilled", "recomputed"])
def test_distillation_never_calls_the_llm(key: str) -> None:
    assert count(empty(), BY_KEY[key]).tflop > 1
    with pytest.raises(AssertionError, match="the LLM was called"):
        count(empty(), BY_KEY["through"])


@pytest.mark.slow
@pytest.mark.usefixtures("llm_forbidden")
def test_a_step_of_features_is_distillation_and_nothing_else(asked: Request) -> None:
    """Four forget and eight retain pictures; vanilla sees those of the latter, which are new in a first step."""
    found = step_cost(empty(), "vkd:variant=features", asked)
    teacher = cost("recomputed").tflop - cost("distilled").tflop
    assert found.tflop == pytest.approx(12 * cost("distilled").tflop + 8 * teacher, rel=1e-9)
    assert found.passes == 0
    with pytest.raises(AssertionError, match="the LLM was called"):
        step_cost(empty(), "vkd", asked)


# ---- layers that nobody reads ------------------------------------------------------------------------------------
def test_a_layer_that_is_not_read_is_not_computed_and_no_bit_changes(
    family_folders: dict[str, Path], benchmark: Benchmark
) -> None:
    picture = next(q.picture for q in benchmark.split(5).questions if q.picture is not None)
    folder = family_folders["llava_next"]
    vlm, plain = load(folder), load(folder)
    stock = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="sdpa").eval()
    plain.model = stock  # as transformers computes it: not made by VLM, so nothing is skipped

    def results(model: VLM) -> list[Tensor]:
        layers = model.model.get_submodule("model.vision_tower.encoder.layers")
        ran: list[int] = []
        for i, layer in enumerate(layers.children()):
            layer.get_submodule("mlp").register_forward_hook(lambda *_, i=i: ran.append(i))
        weights = model.trainable(PARTS)
        for weight in weights.values():
            weight.requires_grad_(True)
        features = model.features(model.pixels([picture]))
        said = logits(model, pack(model, [Group(picture, (Prompt("Where?", ("Oslo",)),))]))
        said.sum().backward()
        assert ran == ([0, 0] if model is vlm else [0, 1, 0, 1])
        gradients = [weight.grad for weight in weights.values() if weight.grad is not None]
        assert len(gradients) == len(weights)
        return [*features.layers, features.projected, said, *gradients]

    for ours, theirs in zip(results(vlm), results(plain), strict=True):
        assert torch.equal(ours, theirs)


# ---- the same steps with numbers ---------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "parts"),
    [("full", PARTS), ("through", ("vision", "projector")), ("packed", ("vision", "projector")),
     ("distilled", ("vision", "projector")), ("recomputed", ("vision", "projector"))],
)  # fmt: skip
def test_a_regime_trains_its_parts(key: str, parts: tuple[Part, ...], tiny: VLM) -> None:
    with BY_KEY[key].setting(tiny, 2) as step:
        step()
        reached = {name for name, weight in tiny.model.named_parameters() if weight.grad is not None}
    assert reached == set(tiny.trainable(parts))
    assert not any(w.requires_grad or w.grad is not None for w in tiny.model.parameters())


def test_lora_trains_adapters_of_the_llm_alone(tiny: VLM) -> None:
    names = {name for name, _ in tiny.model.named_parameters()}
    with BY_KEY["lora"].setting(tiny, 1) as step:
        step()
        reached = {name for name, weight in tiny.model.named_parameters() if weight.grad is not None}
    assert len(reached) == 2 * 2 * 7  # layers, A and B, linear layers
    assert all(".lora_" in name and tiny.part_of(name) == "llm" for name in reached)
    assert {name for name, _ in tiny.model.named_parameters()} == names


def test_random_pictures_fit_the_model(tiny: VLM) -> None:
    assert pixels(tiny, 3).tensors["pixel_values"].shape == (3, 3, tiny.side, tiny.side)


# ---- the page ----------------------------------------------------------------------------------------------------
def printed(key: str) -> list[str]:
    """The cells of the line of docs/cost.md that begins with `key`."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in PAGE.read_text().splitlines()]
    (found,) = (cells for cells in lines if cells and cells[0] == key)
    return found


@pytest.mark.parametrize("key", BY_KEY)
def test_the_page_says_what_is_counted(key: str) -> None:
    assert printed(key)[2:] == [cost(key).unit, f"{cost(key).tflop:.3f}", str(cost(key).passes)]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_page_says_what_a_step_of_a_method_costs(name: Name, asked: Request) -> None:
    found = step_cost(empty(), name, asked)
    assert printed(name)[1:] == [f"{found.tflop:.3f}", str(found.passes)]
