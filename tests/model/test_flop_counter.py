"""The counter of work, against what torch counts and what can be counted by hand."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark
from study.engine.microbatches import activation_checkpointing
from study.evaluation import scoring
from study.evaluation.scoring import readings
from study.model import decoding
from study.model.families import read_layers
from study.model.flop_counter import ComputeCount, counted
from study.model.likelihood import cross_entropy
from study.model.lora import lora_adapters
from study.model.packing import Batch, Group, Prompt, hidden_states, pack
from study.model.vlm import VLM
from tests.helpers.families import FAMILIES
from tests.helpers.small import fresh, same_bits

BY_HAND = {"gemma3": 0.02, "mllama": 0.002}
"""What may be missing: Gemma 3's projector has a weight that is no layer's, Mllama's tower makes masks by a product."""


@contextmanager
def torch_counts() -> Iterator[FlopCounterMode]:
    """Torch's own counter. It does not see the products inside of its fused attention on a CPU."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def batch_of(vlm: VLM, benchmark: Benchmark, count: int = 6) -> Batch:
    some = [q for q in benchmark.split(5).questions if q.picture is not None][:count]
    return pack(vlm, [Group(q.picture, (Prompt(q.prompt, (q.answer,)),)) for q in some])


@contextmanager
def gradients_of(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Ask for the gradients of some weights."""
    asked = list(weights)
    for weight in asked:
        weight.requires_grad_(True)
    yield
    for weight in asked:
        weight.requires_grad_(False)
        weight.grad = None


@pytest.mark.parametrize("name", FAMILIES)
def test_operations_are_those_that_torch_counts(
    name: str, family_folders: dict[str, Path], benchmark: Benchmark
) -> None:
    vlm = fresh(family_folders[name])
    batch = batch_of(vlm, benchmark)
    with torch.no_grad(), counted(vlm) as work, torch_counts() as counter:
        vlm.model.lm_head(hidden_states(vlm, batch))
    assert work.flops == pytest.approx(counter.get_total_flops(), rel=BY_HAND.get(name, 1e-12))
    assert (work.images, work.prompt_tokens, work.generated_tokens) == (6, batch.input_ids.numel(), 0)
    assert work.passes == Counter({(part, False): 1 for part in PARTS})


@pytest.mark.parametrize(
    "trained", [PARTS, ("vision",), ("projector",), ("llm",), ("vision", "projector")], ids="+".join
)
@pytest.mark.parametrize("checkpoint", [False, True], ids=["kept", "checkpoint"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_backward_pass_is_what_torch_counts(
    name: str, checkpoint: bool, trained: tuple[Part, ...], family_folders: dict[str, Path], benchmark: Benchmark
) -> None:
    vlm = fresh(family_folders[name])
    batch = batch_of(vlm, benchmark)
    layers = activation_checkpointing(vlm.model) if checkpoint else nullcontext()
    vlm.model.train()
    with gradients_of(vlm.trainable(trained).values()), layers, counted(vlm) as work, torch_counts() as counter:
        cross_entropy(vlm, batch).backward()
    assert work.flops == pytest.approx(counter.get_total_flops(), rel=BY_HAND.get(name, 1e-12))


@pytest.mark.parametrize("chunks", [1, 3])
def test_adapters_are_counted(chunks: int, tiny: VLM, benchmark: Benchmark) -> None:
    tiny.chunks.count = chunks
    batch = batch_of(tiny, benchmark)
    adapted = lora_adapters(tiny, tiny.trainable(("llm",)), rank=4, alpha=4, dropout=0.0, seed=0)
    with adapted as adapters, gradients_of(adapters.values()), counted(tiny) as work, torch_counts() as counter:
        cross_entropy(tiny, batch).backward()
    assert work.flops == counter.get_total_flops()


# ---- by hand -----------------------------------------------------------------------------------------------------
def test_a_layer_takes_three_times_its_forward_and_the_first_two(tiny: VLM) -> None:
    """Two layers of 5 x 4 and 4 x 3 on seven rows: 2 x 7 x 20 and 2 x 7 x 12 operations forward."""
    first, second = nn.Linear(5, 4), nn.Linear(4, 3)
    rows = torch.randn(7, 5)
    one, other = 2 * 7 * 20, 2 * 7 * 12

    def spent(*, first_trained: bool, second_trained: bool) -> float:
        first.requires_grad_(first_trained)
        second.requires_grad_(second_trained)
        with counted(tiny) as work:
            second(first(rows)).sum().backward()
        return work.flops

    assert spent(first_trained=True, second_trained=True) == 2 * one + 3 * other
    assert spent(first_trained=True, second_trained=False) == 2 * one + 2 * other  # through what is frozen
    assert spent(first_trained=False, second_trained=True) == one + 2 * other  # what is frozen lies before
    with counted(tiny) as work, torch.no_grad():
        second(first(rows))
    assert work.flops == one + other


def test_a_step_of_the_tiny_model_by_hand(tiny: VLM, benchmark: Benchmark) -> None:
    """A LLaVA of two layers, 32 wide: pictures of 17 tokens (one is dropped), all weights trained."""
    vision, llm = tiny.model.config.vision_config, tiny.model.config.text_config
    batch = batch_of(tiny, benchmark, 2)
    seen, patches = 2 * ((vision.image_size // vision.patch_size) ** 2 + 1), 2 * tiny.image_tokens
    d, h, wide = vision.hidden_size, llm.hidden_size, llm.intermediate_size
    convolution = 2 * patches * d * 3 * vision.patch_size**2
    read = len(read_layers(tiny.model.get_submodule(tiny.prefixes["vision"]), tiny.model.config))
    tower = read * 2 * seen * (4 * d * d + 2 * d * vision.intermediate_size + seen // 2 * 2 * d)
    projector = 2 * patches * (d * h + h * h)
    rows, length = batch.input_ids.shape
    heads = llm.num_attention_heads * llm.head_dim
    keys = llm.num_key_value_heads * llm.head_dim
    layer = 2 * h * heads + 2 * h * keys + 3 * h * wide + length * 2 * heads
    head = 2 * len(batch.source) * h * llm.vocab_size
    forward = tower + projector + llm.num_hidden_layers * 2 * rows * length * layer + head
    with gradients_of(tiny.trainable(PARTS).values()), counted(tiny) as work:
        cross_entropy(tiny, batch).backward()
    assert work.flops == 3 * forward + 2 * convolution  # pictures have no gradient
    assert work.passes == Counter({(part, True): 1 for part in PARTS})


def test_a_gradient_that_nobody_asks_for_is_not_counted(tiny: VLM, benchmark: Benchmark) -> None:
    batch = batch_of(tiny, benchmark, 2)
    with torch.no_grad(), counted(tiny) as plain:
        cross_entropy(tiny, batch)
    with gradients_of(tiny.trainable(PARTS).values()), counted(tiny) as work:
        cross_entropy(tiny, batch)
    assert work.flops == plain.flops


def test_copies_and_other_models_of_the_class_are_counted(tiny: VLM, benchmark: Benchmark, tiny_folder: Path) -> None:
    pixels = tiny.pixels(list(benchmark.strangers[:2]))
    with counted(tiny) as one:
        tiny.features(pixels)
    with counted(tiny) as all_three:
        for vlm in (tiny, tiny.frozen_copy(("vision",)), fresh(tiny_folder)):
            vlm.features(pixels)
    assert all_three == ComputeCount.of([one] * 3)
    assert one.passes == Counter({("vision", False): 1, ("projector", False): 1})
    assert (one.images, one.tokens) == (2, 0)


def test_a_projector_of_a_class_that_others_share_is_counted_by_itself(tiny: VLM, benchmark: Benchmark) -> None:
    model: Any = tiny.model
    model.model.multi_modal_projector = nn.Linear(32, 32)
    with counted(tiny) as work, torch.no_grad():
        tiny.features(tiny.pixels(list(benchmark.strangers[:2])))
    assert work.passes == Counter({("vision", False): 1, ("projector", False): 1})


def test_counting_changes_no_bit(tiny: VLM, benchmark: Benchmark) -> None:
    batch, found = batch_of(tiny, benchmark), []
    for counting in (counted(tiny), nullcontext()):
        with gradients_of(tiny.trainable(PARTS).values()), counting:
            cross_entropy(tiny, batch).backward()
            found.append({name: p.grad.clone() for name, p in tiny.model.named_parameters() if p.grad is not None})
    assert same_bits(*found)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_picture_is_encoded_once_for_all_that_is_asked(
    name: str, family_folders: dict[str, Path], benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MAX_NEW_TOKENS", 3)
    vlm = fresh(family_folders[name])
    if not vlm.packs:
        pytest.skip("what a picture is to the language model depends on the question")
    pictured = [q for q in benchmark.split(5).questions if q.picture is not None]
    shown = list(dict.fromkeys(q.picture for q in pictured))[:3]
    some = [q for picture in shown for q in [q for q in pictured if q.picture == picture][:10]]
    with counted(vlm) as work:
        readings(vlm, some)
    assert work.images == 3 < len(some)
    with counted(vlm) as apart:
        for question in some:
            readings(vlm, [question])
    assert apart.images == len(some)
    assert apart.prompt_tokens - work.prompt_tokens > (len(some) - 6) * vlm.image_tokens
    assert apart.flops > 1.2 * work.flops


def test_nothing_is_counted_outside_of_the_block(tiny: VLM, benchmark: Benchmark) -> None:
    some = [q for q in benchmark.split(5).questions if q.options][:2]
    with counted(tiny) as work:
        pass
    readings(tiny, some)
    assert work == ComputeCount()


def test_a_reply_counts_its_tokens_and_stops_when_it_ends(
    tiny: VLM, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first token costs nothing beyond the prompt; a reply that has ended takes no further turn."""
    monkeypatch.setattr(scoring, "MAX_NEW_TOKENS", 6)
    word = tiny.tokenizer.convert_tokens_to_ids(" Oslo")
    ended = iter([[word, word, tiny.eos_id, word], [tiny.eos_id, word, word], *[[word, word]] * 4])
    monkeypatch.setattr(decoding, "_likeliest", lambda logits, said, going, step: torch.tensor(next(ended))[said])
    some = [q for q in benchmark.split(5).questions if q.task == "cloze" and q.picture is None][:4]
    with counted(tiny) as work:
        found = readings(tiny, some)
    assert work.generated_tokens == 3 + 2 * 4  # each turn takes those that go on, in the one row of four
    assert [len(str(r.reply).split()) for r in found.values()] == [1, 6, 0, 6]
