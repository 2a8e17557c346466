"""Tensors of which a process may hold only a shard (`study.engine.fsdp`), handled as if it held all of them.

On an ordinary tensor each of these functions does the same in plain torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def is_shard(tensor: Tensor) -> bool:
    """Whether this process may hold only a shard of a tensor: a DTensor, recognized without its import of a second."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Any) -> Tensor:
    """The whole of a tensor of which this process may hold only a shard. All processes must call it."""
    whole: Tensor = tensor.full_tensor() if is_shard(tensor) else tensor
    return whole


def local_shard(tensor: Any) -> Tensor:
    """The part of a tensor that this process holds: all of it, unless it is sharded."""
    held: Tensor = tensor.to_local() if is_shard(tensor) else tensor
    return held


def shard_like(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor on the device of `like`, sharded like that. Nothing is exchanged."""
    there = tensor.to(like.device)
    if not is_shard(like) or is_shard(tensor):
        return there
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


def gradients(value: Tensor, weights: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """The gradient of a scalar by each weight, None where it has none: `torch.autograd.grad`, also for sharded weights.

    FSDP provides the gradients of these only as `.grad`, averaged over the processes.
    """
    if not any(is_shard(weight) for weight in weights):
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
