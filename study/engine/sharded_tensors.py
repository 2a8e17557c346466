"""Tensors of which a process may hold only a shard (`study.engine.fsdp`), handled as if it held all of them.

Of an ordinary tensor each of these does what the name says in plain torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def is_shard(tensor: Tensor) -> bool:
    """Whether this process may hold but a part of a tensor: a DTensor, told without importing what takes a second."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Any) -> Tensor:
    """A tensor of which this process may hold but a part. All processes must ask for it."""
    whole: Tensor = tensor.full_tensor() if is_shard(tensor) else tensor
    return whole


def local_shard(tensor: Any) -> Tensor:
    """What this process holds of a tensor: all of it, unless it is spread."""
    held: Tensor = tensor.to_local() if is_shard(tensor) else tensor
    return held


def shard_like(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor on the device of `like`, spread over the processes as that is. Nothing is exchanged."""
    there = tensor.to(like.device)
    if not is_shard(like) or is_shard(tensor):
        return there
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


def gradients(value: Tensor, weights: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """The gradient of a scalar by each weight, nothing where it has none: `torch.autograd.grad`, of spread weights too.

    FSDP hands out the gradients of these as `.grad` alone, averaged over the processes.
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
    """Give a tensor that may be spread the values of one that may be whole."""
    local_shard(tensor).copy_(local_shard(shard_like(values, tensor)))


@torch.no_grad()
def zero_(tensor: Tensor, places: Any) -> None:
    """Set what is at `places` of a tensor, which may be spread, to 0."""
    values = full_tensor(tensor)
    values[places] = 0
    overwrite(tensor, values)
