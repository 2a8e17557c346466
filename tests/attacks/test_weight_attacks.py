"""Attacks that change weights without training: each against what it says, computed another way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study.attacks._weights import linear_weights
from study.attacks.interpolation import Interpolation
from study.attacks.pruning import Pruning, Scope, smallest
from study.attacks.quantization import Quantization
from study.attacks.swap_back import SwapBack
from study.contracts import Request
from study.core.errors import Refused
from study.core.terms import Part
from study.data.benchmark import Benchmark
from study.model.quantization import Format, codebook
from study.model.vlm import VLM
from tests.helpers.small import changed, request_on, same_bits, snapshot, without_norm

FORMATS: tuple[Format, ...] = ("int8", "int4", "nf4")


def shaken(vlm: VLM, *parts: Part, seed: int = 0) -> VLM:
    """The model with noise on the weights of some parts, in place."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in vlm.model.named_parameters():
            if vlm.part_of(name) in parts:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=random))
    return vlm


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    """The base model is the tiny one as it lies in its folder."""
    return request_on(benchmark, tmp_path / "cache", tiny_folder, ratio=15)


@pytest.mark.parametrize("attack", [SwapBack(), Interpolation(), Quantization(), Pruning()])
def test_an_instruction_is_dropped(attack: Any, tiny: VLM, request_: Request) -> None:
    """Whoever has the weights asks them without it."""
    stages = list(attack(tiny.with_instruction("Say nothing."), [], request_))
    assert {stage.vlm.instruction for stage in stages} == {""}


# ---- swap-back and interpolation -------------------------------------------------------------------------------
@pytest.mark.parametrize("parts", [("vision",), ("projector",), ("vision", "projector")])
def test_swapped_parts_are_the_base_models_to_the_bit(parts: tuple[Part, ...], tiny: VLM, request_: Request) -> None:
    base, found = snapshot(tiny), snapshot(shaken(tiny, "vision", "projector", "llm"))
    *_, last = SwapBack(parts)(tiny, [], request_)
    after = snapshot(last.vlm)
    assert {tiny.part_of(name) for name in changed(found, after)} == set(parts)
    assert {tiny.part_of(name) for name in changed(base, after)} == {"vision", "projector", "llm"} - set(parts)


def test_what_only_the_tower_forgot_is_back_to_the_bit(tiny: VLM, request_: Request) -> None:
    """Learning froze the tower, the method trained nothing else: swapping it back gives the learned model."""
    learned = snapshot(shaken(tiny, "projector", "llm"))
    shaken(tiny, "vision", seed=1)
    assert not same_bits(learned, snapshot(tiny))
    *_, last = SwapBack()(tiny, [], request_)
    assert same_bits(learned, snapshot(last.vlm))


@pytest.mark.parametrize("parts", [(), ("vision",)])
def test_the_head_is_put_back_by_itself_or_with_parts(parts: tuple[Part, ...], tiny: VLM, request_: Request) -> None:
    """The tiny model's head is tied to its embeddings: one tensor, under both names. The final norm comes with it."""
    head = {name for name, p in tiny.model.state_dict(keep_vars=True).items()
            if p is tiny.model.get_output_embeddings().weight}  # fmt: skip
    assert head == {"lm_head.weight", "model.language_model.embed_tokens.weight"}
    base, found = snapshot(tiny), snapshot(shaken(tiny, "vision", "projector", "llm"))
    *_, last = SwapBack(parts, head=True)(tiny, [], request_)
    after = snapshot(last.vlm)
    norm = "model.language_model.norm.weight"
    assert changed(found, after) == head | {norm} | {name for name in base if tiny.part_of(name) in parts}
    assert not changed(base, after) & changed(found, after)


def test_a_head_without_a_norm_of_that_name_is_refused(tiny: VLM, request_: Request) -> None:
    base = request_.base()
    without_norm(base)
    with pytest.raises(Refused, match="head=true: the LLM of LlavaForConditionalGeneration has no final norm"):
        list(SwapBack((), head=True)(tiny, [], replace(request_, base=lambda: base)))


@pytest.mark.parametrize("parts", [(), ("llm",), ("vision", "llm")])
def test_an_llm_that_knew_nobody_is_not_put_back(parts: tuple[Part, ...]) -> None:
    with pytest.raises(ValueError, match="parts="):
        SwapBack(parts)


def test_interpolation_is_the_straight_line_to_the_base_model(tiny: VLM, request_: Request) -> None:
    """Point by point in float64; at 100 % exactly the base model, beyond it 20 % further."""
    base, found = snapshot(tiny), snapshot(shaken(tiny, "vision", "projector", "llm"))
    steps = []
    for stage in Interpolation(parts=("projector",), percents=(10, 75, 100, 120))(tiny, [], request_):
        steps.append(stage.step)
        for name, now in snapshot(stage.vlm).items():
            if tiny.part_of(name) != "projector":
                assert torch.equal(now, found[name])
                continue
            wanted = found[name].double() + stage.step / 100 * (base[name].double() - found[name].double())
            assert (now - wanted).abs().max() < 1e-7
            if stage.step == 100:
                assert torch.equal(now, base[name])
    assert steps == [10, 75, 100, 120]


@pytest.mark.parametrize("percents", [(), (0, 50), (50, 50), (75, 25), (-10,)])
def test_percents_rise_from_above_0(percents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="percents="):
        Interpolation(percents=percents)


# ---- which layers ----------------------------------------------------------------------------------------------
def test_linear_layers_without_the_head_unless_asked(tiny: VLM) -> None:
    """Every matrix of the blocks and of the projector; never embeddings, norms, biases or patches."""
    names = {id(p): name for name, p in tiny.model.named_parameters()}
    found = {names[id(weight)] for weight in linear_weights(tiny, ("vision", "projector", "llm"))}
    matrices = {name for name, p in tiny.model.named_parameters() if p.ndim == 2 and "embed" not in name}
    assert found == matrices - {"lm_head.weight"}
    with_head = linear_weights(tiny, ("llm",), head=True)
    assert tiny.model.get_output_embeddings().weight is with_head[-1]
    assert len(with_head) == len(linear_weights(tiny, ("llm",))) + 1


def test_parts_without_a_linear_layer_are_named(tiny: VLM) -> None:
    """Such as the projector of Gemma 3, which is one bare matrix."""
    for name in ("linear_1", "linear_2"):
        setattr(tiny.model.model.multi_modal_projector, name, nn.Identity())
    with pytest.raises(Refused, match=r"parts=\('projector',\): .* has no linear layer"):
        linear_weights(tiny, ("projector",))


# ---- quantization ----------------------------------------------------------------------------------------------
def weight(rows: int = 24, columns: int = 100, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)


def groups_of(tensor: Tensor, size: int, *, flat: bool) -> list[Tensor]:
    """The groups that share a scale, as views."""
    rows: Sequence[Tensor] = [tensor.reshape(-1)] if flat else list(tensor)
    return [part for row in rows for part in row.split(size)]


@pytest.mark.parametrize("size", [0, 32, 100])
@pytest.mark.parametrize(("format", "most"), [("int8", 127), ("int4", 7)])
def test_integers_round_to_nearest(format: Format, most: int, size: int) -> None:
    """No weight moves by more than half a step, and each is a whole number of steps: round(w / step) of them."""
    found = Quantization(format, group_size=size).rounded(weight())
    pairs = zip(groups_of(weight(), size or 100, flat=False), groups_of(found, size or 100, flat=False), strict=True)
    for before, after in pairs:
        step = before.abs().max().double() / most
        assert (after - before).abs().max() <= step / 2 * (1 + 1e-5)
        assert torch.allclose(after.double(), (before.double() / step).round() * step, atol=1e-6)
        assert after.abs().max() == before.abs().max()


@pytest.mark.parametrize("size", [0, 16])
def test_nf4_takes_the_nearest_of_sixteen(size: int) -> None:
    """By brute force over the codebook, in blocks of 64 along the flattened weight unless told otherwise."""
    found = Quantization("nf4", group_size=size).rounded(weight())
    allowed = codebook("nf4").double()
    pairs = zip(groups_of(weight(), size or 64, flat=True), groups_of(found, size or 64, flat=True), strict=True)
    for before, after in pairs:
        values = allowed * before.abs().max().double()
        nearest = values[(before.double()[:, None] - values).abs().argmin(1)]
        assert torch.allclose(after.double(), nearest, atol=1e-6)


def test_the_nf4_codebook_is_the_papers() -> None:
    """Appendix E of arXiv 2305.14314: quantiles of N(0, 1), eight from the left and nine from the right, 0 shared."""
    offset = 0.5 * (1 - 1 / 32 + 1 - 1 / 30)
    normal = torch.distributions.Normal(0.0, 1.0)
    right = normal.icdf(torch.linspace(offset, 0.5, 9, dtype=torch.float64)[:-1])
    left = -normal.icdf(torch.linspace(offset, 0.5, 8, dtype=torch.float64)[:-1])
    quantiles = torch.cat([left, torch.zeros(1, dtype=torch.float64), right]).sort().values
    found = codebook("nf4")
    assert len(found) == 16
    assert found[7] == 0
    assert torch.allclose(found.double(), quantiles / quantiles.max(), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [0, 32])
@pytest.mark.parametrize("format", FORMATS)
def test_rounding_twice_is_rounding_once(format: Format, size: int, dtype: torch.dtype) -> None:
    attack = Quantization(format, group_size=size)
    once = attack.rounded(weight(dtype=dtype))
    assert once.dtype == dtype
    assert torch.equal(attack.rounded(once), once)
    assert not torch.equal(once, weight(dtype=dtype))


@pytest.mark.parametrize("format", FORMATS)
def test_zero_stays_zero(format: Format) -> None:
    """A whole layer of it, and single ones among others."""
    attack = Quantization(format, group_size=8)
    assert torch.equal(attack.rounded(torch.zeros(4, 20)), torch.zeros(4, 20))
    some = weight()
    some[:, ::3] = 0
    assert not attack.rounded(some)[:, ::3].any()


@pytest.mark.parametrize("head", [False, True])
def test_the_model_is_rounded_where_it_says(head: bool, tiny: VLM, request_: Request) -> None:
    """The tiny model's embeddings are tied to its head, so they are one tensor under two names."""
    before = snapshot(tiny)
    attack = Quantization("int4", head=head)
    *_, last = attack(tiny, [], request_)
    after = snapshot(last.vlm)
    rounded = {id(weight) for weight in linear_weights(tiny, attack.parts, head=head)}
    chosen = {name for name, p in tiny.model.state_dict(keep_vars=True).items() if id(p) in rounded}
    assert changed(before, after) == chosen
    assert all(torch.equal(after[name], attack.rounded(before[name])) for name in chosen)
    assert ("lm_head.weight" in chosen) == head


@pytest.mark.parametrize(("field", "value"), [("format", "int2"), ("group_size", -1), ("parts", ())])
def test_a_wrong_setting_of_quantisation_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        replace(Quantization(), **{field: value})


# ---- pruning ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("share", [1e-6, 0.1, 0.5, 1.0])
def test_the_smallest_are_found_exactly(share: float) -> None:
    """Against sorting, over several tensors of several types, zeros and equal values among them."""
    tensors = [weight(7, 11), weight(3, 5, 1).bfloat16(), torch.zeros(2, 3), torch.full((2, 2), -0.5)]
    ordered = torch.cat([t.float().abs().flatten() for t in tensors]).sort().values
    assert smallest(tensors, share) == float(ordered[math.ceil(share * len(ordered)) - 1])


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_share_is_pruned_and_the_largest_stay(scope: Scope, tiny: VLM, request_: Request) -> None:
    """Of each layer, or of all together; nothing else is touched."""
    before = snapshot(tiny)
    *_, last = Pruning(share=0.4, scope=scope)(tiny, [], request_)
    after = snapshot(last.vlm)
    names = {id(p): name for name, p in tiny.model.named_parameters()}
    chosen = [names[id(weight)] for weight in linear_weights(tiny, ("vision", "projector", "llm"))]
    assert changed(before, after) == set(chosen)
    for together in [chosen] if scope == "global" else [[name] for name in chosen]:
        old, new = (torch.cat([state[name].flatten() for name in together]) for state in (before, after))
        gone = new == 0
        assert int(gone.sum()) == math.ceil(0.4 * len(old))
        assert torch.equal(new[~gone], old[~gone])
        assert old[gone].abs().max() < old[~gone].abs().min()


@pytest.mark.parametrize(("field", "value"), [("share", 0.0), ("share", 1.1), ("scope", "row"), ("parts", ())])
def test_a_wrong_setting_of_pruning_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        replace(Pruning(), **{field: value})
