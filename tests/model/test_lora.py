"""Low-rank adapters: what they change, what is left of them, and that every gradient method can train by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import torch
from peft import LoraConfig
from peft.tuners import lora
from torch import Tensor, nn

from study.core.errors import Refused
from study.core.plugins import name_of
from study.core.terms import PARTS, Dtype, Part
from study.data.benchmark import Benchmark
from study.methods.gradient_ascent import GradientAscent
from study.methods.gradient_difference import GradientDifference
from study.methods.kl_minimization import KLMinimization
from study.methods.npo import NPO
from study.methods.preference_optimization import PreferenceOptimization
from study.methods.rmu import RMU
from study.methods.satimp import SatImp
from study.methods.simnpo import SimNPO
from study.methods.undial import UNDIAL
from study.methods.wga import WGA
from study.model.likelihood import cross_entropy
from study.model.loading import Loading, load
from study.model.lora import _Adapted, lora_adapters
from study.model.packing import Batch, Group, Prompt, logits, pack
from study.model.vlm import VLM
from study.training.loop import Diverged, frozen, steps, train
from study.training.schedule import Schedule
from tests.helpers.small import borrowed, changed, fresh, quick, request_on, same_bits, snapshot

RANK = 2
LORA = Schedule(steps=3, learning_rate=1e-2, pictures=2, lessons_per_picture=2, texts=1, lora_rank=RANK)
METHODS: tuple[Any, ...] = (
    GradientAscent(),
    GradientDifference(),
    GradientDifference(variant="released"),
    KLMinimization(),
    KLMinimization(variant="released"),
    NPO(),
    NPO(variant="released"),
    PreferenceOptimization(),
    PreferenceOptimization(form="dpo"),
    SimNPO(),
    RMU(layer=1),
    UNDIAL(),
    WGA(),
    SatImp(),
)


def label(method: Any) -> str:
    return " ".join(filter(None, [name_of(method), getattr(method, "form", ""), getattr(method, "variant", "")]))


def first(method: Any, *rest: Any, repeats: bool) -> Any:
    """A case, marked if it repeats that of the first method: all train adapters by the same loop, to which each hands
    its request's seed (`tests/methods`)."""
    name = "-".join([label(method), *rest])
    return pytest.param(method, *rest, id=name, marks=pytest.mark.combinations if repeats else ())


FIRST_AND_REST = [first(method, repeats=place > 0) for place, method in enumerate(METHODS)]
ON_PARTS = [
    first(method, part, repeats=place > 0 and part != "llm") for place, method in enumerate(METHODS) for part in PARTS
]


class Ran(NamedTuple):
    """A model before and after a method, and what it was when it came back."""

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    plain: bool


@pytest.fixture(scope="module")
def lent(tiny_folder: Path) -> VLM:
    return fresh(tiny_folder)


@pytest.fixture(scope="module")
def run_(
    lent: VLM, benchmark: Benchmark, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Ran]:
    """Runs a method with adapters on one part, on a model that is put back afterwards."""
    request = request_on(benchmark, tmp_path_factory.mktemp("cache"), tiny_folder)

    def ran(method: Any, parts: tuple[Part, ...], seed: int = 0) -> Ran:
        with borrowed(lent) as (vlm, _):
            before = snapshot(vlm)
            after = quick(method, LORA, trains=parts)(vlm, dataclasses.replace(request, seed=seed))
            return Ran(before, snapshot(after), is_plain(after))

    return ran


@pytest.fixture
def batch(tiny: VLM, benchmark: Benchmark) -> Batch:
    lessons = [lesson for lesson in benchmark.split(10).lessons if lesson.picture is not None][::60]
    return pack(tiny, [Group(lesson.picture, (Prompt(lesson.prompt, (lesson.answer,)),)) for lesson in lessons])


def is_plain(vlm: VLM) -> bool:
    """Whether nothing of an adapter is left: no module, no parameter, no setting, and nothing waits for a gradient."""
    names = [*vlm.model.state_dict(), *(name for name, _ in vlm.model.named_parameters())]
    return (
        not any(isinstance(module, lora.LoraLayer) for module in vlm.model.modules())
        and not any("lora_" in name or "base_layer" in name for name in names)
        and not hasattr(vlm.model, "peft_config")
        and not any(p.requires_grad or p.grad is not None for p in vlm.model.parameters())
        and not vlm.model.training
    )


def linear(vlm: VLM, parts: tuple[Part, ...]) -> set[str]:
    """The weights of the linear layers of some parts that can be trained, the output head left out."""
    layers = {f"{name}.weight" for name, m in vlm.model.named_modules() if isinstance(m, nn.Linear)}
    return (layers & vlm.trainable(parts).keys()) - {"lm_head.weight"}


# ---- methods -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("method", "part"), ON_PARTS)
def test_adapters_change_the_linear_layers_of_their_part_by_a_low_rank(
    method: Any, part: Part, run_: Callable[..., Ran], lent: VLM
) -> None:
    before, after, plain = run_(method, (part,))
    assert plain
    moved = changed(before, after)
    assert moved
    assert moved <= linear(lent, (part,))
    for name in moved:
        difference = (after[name] - before[name]).double()
        assert min(difference.shape) > RANK
        tolerance = 1e-5 * float(before[name].abs().max())  # the merged sum is rounded to float32
        assert 1 <= int(torch.linalg.matrix_rank(difference, atol=tolerance)) <= RANK


def test_full_training_changes_what_is_not_linear_and_by_a_full_rank(run_: Callable[..., Ran], lent: VLM) -> None:
    """The test above could fail."""
    with borrowed(lent) as (vlm, before):
        train(vlm, ("vision",), dataclasses.replace(LORA, lora_rank=0), lambda step: _size(vlm))
        moved = changed(before, vlm.tensors())
        assert not moved <= linear(vlm, ("vision",))
        name = next(iter(moved & linear(vlm, ("vision",))))
        assert int(torch.linalg.matrix_rank((vlm.tensors()[name] - before[name]).double(), atol=1e-5)) > RANK


@pytest.mark.parametrize("method", FIRST_AND_REST)
def test_adapters_are_seeded_by_the_request_alone(method: Any, run_: Callable[..., Ran]) -> None:
    found = []
    for state, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(state)
        found.append(run_(method, ("projector", "llm"), seed).after)
        assert torch.initial_seed() == state
    assert same_bits(found[0], found[1])
    assert not same_bits(found[0], found[2])


def test_the_seed_reaches_the_adapters_themselves(tiny: VLM, batch: Batch) -> None:
    """With the same lessons and no dropout, another seed still gives other weights."""
    schedule = dataclasses.replace(LORA, lora_dropout=0.0)
    found = []
    for seed in (0, 0, 1):
        with borrowed(tiny) as (vlm, _):
            train(vlm, ("llm",), schedule, lambda step: cross_entropy(tiny, batch), seed=seed)
            found.append(snapshot(vlm))
    assert same_bits(found[0], found[1])
    assert not same_bits(found[0], found[2])


# ---- merging -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("parts", [PARTS, ("vision",), ("projector",), ("llm",)])
def test_merging_does_not_change_what_the_model_says(tiny: VLM, batch: Batch, parts: tuple[Part, ...]) -> None:
    with torch.no_grad():
        start = logits(tiny, batch)
    running = steps(tiny, parts, LORA, lambda step: cross_entropy(tiny, batch))
    for done, _ in running:
        if done == LORA.steps:
            assert not is_plain(tiny)
            with torch.no_grad():
                unmerged = logits(tiny, batch)
    assert is_plain(tiny)
    with torch.no_grad():
        merged = logits(tiny, batch)
    assert float((merged - unmerged).abs().max()) < 1e-5
    assert float((merged - start).abs().max()) > 1e-2


def test_the_frozen_model_stays_while_adapters_are_trained(tiny: VLM, batch: Batch) -> None:
    """It is no copy, and yet not changed before the adapters are merged."""
    vanilla = frozen(tiny, PARTS, LORA)
    assert all(p is q for p, q in zip(vanilla.model.parameters(), tiny.model.parameters(), strict=True))
    start = logits(vanilla, batch)
    for _ in steps(tiny, PARTS, LORA, lambda step: cross_entropy(tiny, batch)):
        assert torch.equal(logits(vanilla, batch), start)
        assert not torch.equal(logits(tiny, batch), start)


def test_alpha_is_the_scale_of_the_adapters(tiny: VLM) -> None:
    """W + alpha / rank B A, by hand."""
    name = next(iter(sorted(linear(tiny, ("projector",)))))
    before = tiny.tensors()[name].clone()
    with lora_adapters(tiny, [name], rank=4, alpha=6, dropout=0.0, seed=0) as weights:
        (a,), (b,) = ([p for n, p in weights.items() if f"lora_{letter}" in n] for letter in "AB")
        assert torch.count_nonzero(b) == 0
        with torch.no_grad():
            b.copy_(torch.randn(b.shape, generator=torch.Generator().manual_seed(0)))
        wanted = before + 6 / 4 * b.detach() @ a.detach()
    torch.testing.assert_close(tiny.tensors()[name], wanted)
    assert is_plain(tiny)


@pytest.mark.parametrize("dtype", get_args(Dtype))
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("alpha", [RANK, 5 * RANK])
def test_an_adapted_layer_computes_what_that_of_peft_does(alpha: int, dropout: float, dtype: Dtype) -> None:
    """Bit for bit, forward and backward."""
    made = []
    for kind in (lora.Linear, _Adapted):
        torch.manual_seed(0)
        base = nn.Linear(8, 6, dtype=getattr(torch, dtype))
        config = LoraConfig(r=RANK, lora_alpha=alpha, lora_dropout=dropout, init_lora_weights=False)
        made.append(kind(base, "default", config=config, r=RANK, lora_alpha=alpha))
    x = torch.randn(3, 8, dtype=getattr(torch, dtype))
    for training in (True, False):
        outs, gradients = [], []
        for layer in made:
            torch.manual_seed(1)
            outs.append(layer.train(training)(x))
            weights = [p for name, p in layer.named_parameters() if "lora_" in name]
            gradients.append(torch.autograd.grad(outs[-1].float().square().sum(), weights))
        assert torch.equal(*outs)
        assert not torch.equal(outs[0], made[0].base_layer(x))
        assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("dtype", get_args(Dtype))
def test_no_step_of_an_adapter_is_lost_whatever_the_model_is_in(
    tiny_folder: Path, benchmark: Benchmark, dtype: Dtype
) -> None:
    """At the published rate, which is under 1/256 of nearly every entry of A."""
    vlm = load(tiny_folder, loading=Loading(dtype))
    lesson = next(lesson for lesson in benchmark.split(10).lessons if lesson.picture is not None)
    batch = pack(vlm, [Group(lesson.picture, (Prompt(lesson.prompt, (lesson.answer,)),))])
    with lora_adapters(vlm, linear(vlm, ("llm",)), rank=RANK, alpha=16, dropout=0.0, seed=0) as weights:
        assert {p.dtype for p in weights.values()} == {torch.float32}
        before = {name: p.detach().clone() for name, p in weights.items() if "lora_A" in name}
        optimizer = torch.optim.AdamW(weights.values(), lr=2e-5, weight_decay=0.0)
        for _ in range(5):
            optimizer.zero_grad()
            cross_entropy(vlm, batch).backward()
            optimizer.step()
        moved = torch.cat([(weights[name] != a).flatten() for name, a in before.items()])
    assert float(moved.double().mean()) > 0.95
    assert {tensor.dtype for tensor in vlm.tensors().values() if tensor.is_floating_point()} == {getattr(torch, dtype)}
    assert is_plain(vlm)


# ---- errors and interruptions --------------------------------------------------------------------------------------
def _size(vlm: VLM) -> Tensor:
    return torch.stack([p.square().sum() for p in vlm.model.parameters() if p.requires_grad]).sum()


def test_a_mask_and_adapters_exclude_each_other(tiny: VLM) -> None:
    before = snapshot(tiny)
    masks = {name: torch.ones_like(p) for name, p in tiny.trainable(("projector",)).items()}
    with pytest.raises(Refused, match="lora_rank=2: a saliency mask"):
        train(tiny, ("projector",), LORA, lambda step: _size(tiny), masks=masks)
    assert is_plain(tiny)
    assert same_bits(before, snapshot(tiny))


def test_a_part_without_a_linear_layer_is_an_error(tiny: VLM) -> None:
    norms = [name for name in tiny.trainable(PARTS) if "norm" in name]
    lend = lora_adapters(tiny, norms, rank=2, alpha=16, dropout=0.0, seed=0)
    with pytest.raises(Refused, match="lora_rank=2: there is no linear layer"):
        lend.__enter__()
    assert is_plain(tiny)


def test_diverging_midway_leaves_a_plain_model(tiny: VLM, batch: Batch) -> None:
    before = snapshot(tiny)

    def loss(step: int) -> Tensor:
        return cross_entropy(tiny, batch) * (torch.nan if step == 2 else 1)

    with pytest.raises(Diverged, match="step 2"):
        train(tiny, PARTS, LORA, loss)
    assert is_plain(tiny)
    assert changed(before, snapshot(tiny)) <= linear(tiny, PARTS)


def _closed(running: Iterator[tuple[int, float]]) -> None:
    running.close()  # type: ignore[attr-defined]  # it is a generator


def _dropped(running: Iterator[tuple[int, float]]) -> None:
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)  # type: ignore[attr-defined]


@pytest.mark.parametrize("interrupt", [_closed, _dropped])
def test_an_interruption_leaves_a_plain_model(
    tiny: VLM, batch: Batch, interrupt: Callable[[Iterator[tuple[int, float]]], None]
) -> None:
    running = steps(tiny, PARTS, LORA, lambda step: cross_entropy(tiny, batch))
    next(running)
    assert not is_plain(tiny)
    interrupt(running)
    assert is_plain(tiny)
    assert all(bool(tensor.isfinite().all()) for tensor in tiny.tensors().values())


def test_a_model_can_be_adapted_again(tiny: VLM, batch: Batch) -> None:
    """Unlearning, then an attack: the second training starts from merged weights."""
    for _ in range(2):
        before = snapshot(tiny)
        train(tiny, ("llm",), LORA, lambda step: cross_entropy(tiny, batch))
        assert changed(before, snapshot(tiny))
        assert is_plain(tiny)
