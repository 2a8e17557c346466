"""Several processes that teach one model together: each computes its share of every batch, and all take the same step.

The gradients are added up by hand, one `all_reduce` for each tensor after the backward pass. DistributedDataParallel
would want the whole forward pass behind its own `forward`, while packed batches call the model and its head apart, and
it averages over processes, while a mean over answer tokens needs a sum. It would overlap the exchange with the backward
pass, which is the price. What is computed does not depend on the number of processes, to float rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from study.vlm import VLM

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes that teach one model, those of torch's process group, and which of them this is.

    In a world of one nothing is exchanged and nothing computed otherwise than without it.
    """

    rank: int = 0
    size: int = 1
    sharded: bool = False
    """Whether weights, gradients and optimizer state are spread over the processes (FSDP2), not held by each."""

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """What of a batch this process computes; nothing, if there is less than one item for each."""
        return items[self.rank :: self.size]

    def total(self, value: float) -> float:
        """The sum of a number over all processes, the same bits on each."""
        if self.size == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=_device())
        dist.all_reduce(summed)
        return float(summed)

    def decides(self, value: bool) -> bool:
        """What the first process says: two that look at shared storage may see different things."""
        return self.total(float(value and self.rank == 0)) > 0

    def wait(self) -> None:
        """Until all processes are here."""
        self.total(0.0)

    def add_up(self, weights: Collection[nn.Parameter]) -> None:
        """Sum the gradients over all processes, in place; a weight without a gradient on any of them stays without.

        (An optimizer leaves such a weight alone, while one with a gradient of 0 decays and keeps its momentum.)
        """
        if self.size == 1 or self.sharded:  # FSDP has summed them in the backward pass
            return
        found = torch.tensor([float(weight.grad is not None) for weight in weights], device=_device())
        dist.all_reduce(found)
        for weight, somewhere in zip(weights, found.tolist(), strict=True):
            if somewhere:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                dist.all_reduce(weight.grad)

    def largest(self, weights: Collection[nn.Parameter]) -> float:
        """The largest absolute value among the weights; what is no number counts as infinite in a sharded world."""
        here = [local for weight in weights if (local := _local(weight)).numel()]
        found = (
            torch.stack(torch._foreach_norm(here, ord=math.inf)).max() if here else torch.zeros((), device=_device())
        )
        if self.sharded:
            found = found.float().nan_to_num(nan=math.inf)
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return float(found)

    def spread(self, vlm: VLM) -> Forward:
        """The model as what a training step calls. In a sharded world each process keeps but its part of every tensor.

        Then every layer of the LLM and of the tower is gathered as it runs, and all else (embeddings, projector, head)
        at the start of the pass. A model may lie in the memory of the host and goes to the GPU layer by layer.
        """
        forward = Forward(vlm.model)
        if self.sharded:
            mesh = dist.device_mesh.init_device_mesh(_device(), (self.size,))
            for part in ("llm", "vision"):
                for layer in _layers(vlm.model.get_submodule(vlm.prefixes[part])):
                    fully_shard(layer, mesh=mesh)
            fully_shard(forward, mesh=mesh)
            for module in forward.modules():
                if isinstance(module, FSDPModule):
                    module.set_gradient_divide_factor(1.0)  # a sum, as above
                    module.set_force_sum_reduction_for_comms(True)  # gloo cannot scale while it sums
        return forward


class Forward(nn.Module):
    """A forward pass of a model: whatever the function it is called with computes.

    FSDP gathers weights where a module is entered, and a pass over packed questions enters the model and its head.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, computed: Callable[[], Tensor]) -> Tensor:
        """The result of `computed()`."""
        return computed()


ALONE = World()


def world(*, sharded: bool = False) -> World:
    """The world of this process: all of torch's process group."""
    return World(dist.get_rank(), dist.get_world_size(), sharded)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which this process may hold but a part. In a sharded world all must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _device() -> str:
    """Where the process group exchanges tensors."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def _layers(module: nn.Module) -> list[nn.Module]:
    """The layers of a transformer: its first list of modules."""
    return next(list(found) for found in module.modules() if isinstance(found, nn.ModuleList))
