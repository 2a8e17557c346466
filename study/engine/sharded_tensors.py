"""Tensors of which a process may hold only a shard (`study.engine.fsdp`), handled as if it held all of them.

On an ordinary tensor each of these functions does the same in plain torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor of which this process may hold only a shard. All processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: all of it, unless it is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of `like`, sharded like that. Nothing is exchanged."""
    there = tensor.to(like.device)
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return there
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


def gradients(value: Tensor, weights: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """The gradient of a scalar by each weight, None where it has none: `torch.autograd.grad`, also for sharded weights.

    FSDP provides the gradients of these only as `.grad`, averaged over the processes.
    """
    if not any(isinstance(weight, DTensor) for weight in weights):
        return list(torch.autograd.grad(value, weights, allow_unused=True))
    before = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    value.backward()
    found = [weight.grad for weight in weights]
    for weight, gradient in zip(weights, before, strict=True):
        weight.grad = gradient
    return found


@torch.no_grad()
def overwrite(tensor: Tensor, values: Tensor) -> None:
    """Give a tensor, sharded or not, the values of another, sharded or not."""
    local_shard(tensor).copy_(local_shard(shard_like(values, tensor)))


@torch.no_grad()
def zero_(tensor: Tensor, places: Any) -> None:
    """Set the entries at `places` of a tensor, sharded or not, to 0."""
    values = full_tensor(tensor)
    values[places] = 0
    overwrite(tensor, values)
