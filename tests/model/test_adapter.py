"""A trial of adapters is stored as their factors, from which its model comes back bit for bit."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from study.core.terms import Dtype
from study.data.benchmark import Benchmark
from study.model.adapter import adapters_in, weight_of
from study.model.delta import apply_delta, delta, names_in
from study.model.likelihood import cross_entropy
from study.model.loading import Loading, load
from study.model.packing import Group, Prompt, pack
from study.model.tensor_files import load_tensors, save_tensors
from study.model.vlm import VLM
from study.training.loop import train
from study.training.schedule import Schedule
from tests.helpers.small import changed, fresh, same_bits, snapshot

LORA = Schedule(steps=3, learning_rate=1e-2, lora_rank=2, lora_alpha=3)


def adapted(vlm: VLM, benchmark: Benchmark) -> dict[str, Tensor]:
    """Train adapters of the LLM; returns its tensors as they were."""
    before = {name: tensor.clone() for name, tensor in vlm.tensors().items()}
    lesson = next(lesson for lesson in benchmark.split(10).lessons if lesson.picture is not None)
    batch = pack(vlm, [Group(lesson.picture, (Prompt(lesson.prompt, (lesson.answer,)),))])
    train(vlm, ("llm",), LORA, lambda _: cross_entropy(vlm, batch))
    return before


@pytest.mark.parametrize("dtype", get_args(Dtype))
def test_factors_on_disk_give_the_trained_model_back(
    dtype: Dtype, tiny_folder: Path, benchmark: Benchmark, tmp_path: Path
) -> None:
    vlm, other = (load(tiny_folder, loading=Loading(dtype)) for _ in range(2))
    before = adapted(vlm, benchmark)
    moved = changed(before, vlm.tensors())
    kept = delta(vlm, before)
    assert set(names_in(kept)) == moved == {f"{name}.weight" for name in vlm.linear(("llm",))}
    assert kept.keys() == {f"{name}.lora_{end}" for name in moved for end in ("A", "B", "scale")}
    save_tensors(tmp_path / "delta.safetensors", kept)
    apply_delta(other, load_tensors(tmp_path / "delta.safetensors"))
    assert same_bits(snapshot(vlm), snapshot(other))
    rank = sum(sum(vlm.tensors()[name].shape) for name in moved) * LORA.lora_rank
    assert sum(tensor.numel() for tensor in kept.values()) == rank + len(moved)  # and a scale each


def test_what_adapters_do_not_give_is_stored_whole(tiny: VLM, tiny_folder: Path, benchmark: Benchmark) -> None:
    before = adapted(tiny, benchmark)
    name, also = next(iter(tiny.adapters)), "model.multi_modal_projector.linear_1.weight"
    with torch.no_grad():
        tiny.tensors()[name][0, 0] += 1
        tiny.tensors()[also][0, 0] += 1
    kept = delta(tiny, before)
    assert {name, also} == {stored for stored in kept if weight_of(stored) == stored}
    assert names_in(kept).count(name) == 1
    other = fresh(tiny_folder)
    apply_delta(other, kept)
    assert same_bits(snapshot(tiny), snapshot(other))


def test_whole_tensors_of_an_earlier_study_are_still_a_delta(
    tiny: VLM, tiny_folder: Path, benchmark: Benchmark
) -> None:
    before = adapted(tiny, benchmark)
    whole = {name: tiny.tensors()[name] for name in changed(before, tiny.tensors())}
    assert adapters_in(whole) == {}
    other = fresh(tiny_folder)
    apply_delta(other, whole)
    assert same_bits(snapshot(tiny), snapshot(other))


def test_factors_of_another_model_are_refused_before_anything_changes(tiny: VLM, benchmark: Benchmark) -> None:
    before = snapshot(tiny)
    kept = delta(tiny, adapted(tiny, benchmark))
    apply_delta(tiny, {name: before[name] for name in names_in(kept)})
    last = list(kept)[-1].replace(".lora_scale", "")
    lost = {name: tensor for name, tensor in kept.items() if name != f"{last}.lora_A"}
    with pytest.raises(ValueError, match=f"weights for {last}.lora_A are missing"):
        apply_delta(tiny, lost)
    with pytest.raises(ValueError, match=rf"weights for {last} .* do not fit this model"):
        apply_delta(tiny, {**kept, f"{last}.lora_A": torch.zeros(2, 1)})
    with pytest.raises(ValueError, match=r"weights for nobody .* do not fit this model"):
        apply_delta(tiny, {**kept, **{f"nobody.lora_{end}": kept[f"{last}.lora_{end}"] for end in ("A", "B", "scale")}})
    assert same_bits(before, snapshot(tiny))
