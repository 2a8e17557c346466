"""bfloat16 models are trained in float32: no step is lost, frozen parts stay, results are like those of float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from study.core.terms import PARTS, Dtype, Part
from study.data.benchmark import Benchmark
from study.engine.sharded_tensors import full_tensor
from study.model.likelihood import cross_entropy
from study.model.loading import Loading, load
from study.model.packing import pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.master_weights import MasterWeights
from study.training.schedule import Schedule
from tests.cost.gpu import one_process
from tests.helpers.small import changed, same_bits, snapshot

VISUAL: tuple[Part, ...] = ("vision", "projector")


def uphill(vlm: VLM, parts: Sequence[Part]) -> Callable[[int], Tensor]:
    """A loss whose gradient is -1 for every weight."""
    weights = vlm.trainable(parts).values()
    return lambda step: -torch.stack([weight.float().sum() for weight in weights]).sum()


# ---- what an optimizer moves ---------------------------------------------------------------------------------------
def test_weights_in_float32_are_their_own_masters() -> None:
    weight = nn.Parameter(torch.ones(3))
    masters = MasterWeights({"w": weight})
    assert masters.held["w"] is weight
    weight.grad = torch.ones(3)
    masters.take_gradients()
    masters.write()
    assert torch.equal(weight.grad, torch.ones(3))


def test_gradients_of_several_passes_are_added_in_float32() -> None:
    """In bfloat16 1 + 1/512 is 1."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    masters = MasterWeights({"w": weight})
    for part in (1.0, 1 / 512):
        (part * weight).sum().backward()
        masters.take_gradients()
        assert weight.grad is None
    assert float(masters.held["w"].grad or 0) == 1 + 1 / 512


def test_small_steps_add_up(tiny_folder: Path) -> None:
    """The first step is less than bfloat16 can tell from 1 and is rounded away; ten together are not."""
    vlm = load(tiny_folder, loading=Loading("bfloat16"))
    weights = vlm.trainable(("projector",)).values()
    with torch.no_grad():
        for weight in weights:
            weight.fill_(1.0)
    schedule = Schedule(steps=10, learning_rate=1e-3, decay="constant", optimizer="sgd", clip=1e9)
    flat = replace(schedule, steps=1)
    train(vlm, ("projector",), flat, uphill(vlm, ("projector",)))
    assert {float(value) for weight in weights for value in weight.flatten()} == {1.0}  # rounded back
    train(vlm, ("projector",), schedule, uphill(vlm, ("projector",)))
    # SGD's momentum: the sum over steps of 1, 1.9, 2.71, ...
    moved = 1e-3 * sum((1 - 0.9 ** (n + 1)) / 0.1 for n in range(10))
    wanted = float(torch.tensor(1 + moved).bfloat16())
    assert wanted > 1.03
    assert {float(value) for weight in weights for value in weight.flatten()} == {wanted}


# ---- a model in bfloat16 -------------------------------------------------------------------------------------------
def taught(vlm: VLM, benchmark: Benchmark, parts: Sequence[Part], schedule: Schedule) -> list[float]:
    drawn = Lessons(benchmark.split(10).lessons, schedule, 0)
    return train(vlm, parts, schedule, lambda _: cross_entropy(vlm, pack(vlm, drawn.draw())))


@pytest.mark.parametrize("parts", [VISUAL, PARTS])
def test_a_model_stays_bfloat16_and_its_frozen_parts_stay_as_they_are(
    parts: tuple[Part, ...], tiny_folder: Path, benchmark: Benchmark
) -> None:
    vlm, plain = (load(tiny_folder, loading=Loading(dtype)) for dtype in ("bfloat16", "float32"))
    schedule = Schedule(steps=6, learning_rate=1e-3, pictures=4, lessons_per_picture=4, precision="bfloat16")
    before = snapshot(vlm)
    curve = taught(vlm, benchmark, parts, schedule)
    assert {p.dtype for p in vlm.model.parameters()} == {torch.bfloat16}
    assert {vlm.part_of(name) for name in changed(before, snapshot(vlm))} == set(parts)
    wanted = taught(plain, benchmark, parts, replace(schedule, precision="float32"))
    assert curve == pytest.approx(wanted, rel=0.01)  # two to three digits
    assert wanted[-1] < wanted[0]


class _Casts(TorchDispatchMode):
    """Notes the shapes of float32 matrices that are cast to bfloat16."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: set[torch.Size] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.shapes.add(args[0].shape)
        return func(*args, **kwargs)


@contextmanager
def casts() -> Iterator[set[torch.Size]]:
    with _Casts() as seen:
        yield seen.shapes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_autocast_copies_the_frozen_weights_of_a_float32_model_alone(
    dtype: Dtype, tiny_folder: Path, benchmark: Benchmark
) -> None:
    vlm = load(tiny_folder, loading=Loading(dtype))
    frozen = {weight.shape for weight in (layer.weight for layer in vlm.linear(("llm",)).values())}
    with casts() as shapes:
        taught(vlm, benchmark, VISUAL, Schedule(steps=1, pictures=2, precision="bfloat16"))
    assert bool(frozen & shapes) == (dtype == "float32")


def test_a_sharded_model_is_trained_alike(tiny_folder: Path, benchmark: Benchmark) -> None:
    """Over one process, which gathers and averages as several do: master weights are shards too."""
    schedule = Schedule(steps=3, learning_rate=1e-3, pictures=2, lessons_per_picture=4)
    whole = load(tiny_folder, loading=Loading("bfloat16"))
    wanted = taught(whole, benchmark, VISUAL, schedule)
    with one_process("cpu"):
        vlm = load(tiny_folder, loading=Loading("bfloat16")).shard()
        curve = taught(vlm, benchmark, VISUAL, schedule)
        found = {name: full_tensor(tensor) for name, tensor in vlm.tensors().items()}
    assert curve == wanted
    assert same_bits(found, whole.tensors())
