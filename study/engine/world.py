"""Several processes that do one job together: each computes its rows of every training batch, its share of questions.

A loss may be any function of a whole batch, so it is forward passes that are shared (`study.engine.microbatches`): each
process computes some rows, all receive the results of all rows, and the loss is the same everywhere. In the backward
pass each process follows only its own rows, times the number of processes, and gradients are averaged before the
optimizer's step: contributions of rows are summed, and what every process computed in full, such as a penalty on
weights, counts once. The result does not depend on the number of processes, up to float rounding.

Gradients are exchanged after the backward pass, tensor by tensor. DistributedDataParallel would overlap the two, but
requires the whole forward pass behind its own `forward`, while methods call parts of the model, and often.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from study.engine.sharded_tensors import is_shard, local_shard

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of torch's process group, and the rank of this one.

    All processes run the same code on the same data and call every method here in the same order. In a world of one
    nothing is exchanged, and everything is computed as without it.
    """

    rank: int = 0
    size: int = 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The items of some work that this process does; none, if there are fewer items than processes."""
        return items[self.rank :: self.size]

    def row_slice(self, rows: int) -> slice:
        """The rows of a batch that this process computes, in the order of ranks; none if there are too few."""
        return slice(self.rank * rows // self.size, (self.rank + 1) * rows // self.size)

    def gathered(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The rows of all processes, in order of ranks; all `tensors` of a process have equally many rows.

        The gradient flows to the process's own rows, times the number of processes.
        """
        if self.size == 1:
            return list(tensors)
        counts = torch.zeros(self.size, dtype=torch.long, device=tensors[0].device)
        counts[self.rank] = len(tensors[0])
        dist.all_reduce(counts)
        return [_Gathered.apply(rows, counts.tolist(), self.rank) for rows in tensors]  # type: ignore[no-untyped-call]

    def broadcast_from_first(self, look: Callable[[], T]) -> T:
        """What `look` returns in the first process. Ranks may see different states of a shared folder."""
        if self.size == 1:
            return look()
        found: list[Any] = [look() if self.rank == 0 else None]
        dist.broadcast_object_list(found, device=_device())
        told: T = found[0]
        return told

    def all_gather_objects(self, value: T) -> list[T]:
        """The values of all processes."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def broadcast_float(self, value: float) -> float:
        """The number of the first process, which no process receives before all have called."""
        if self.size == 1:
            return value
        number = torch.tensor(value if self.rank == 0 else 0.0, dtype=torch.float64, device=_device())
        dist.all_reduce(number)
        return float(number)

    def all_min(self, number: int) -> int:
        """The minimum of a number over all processes."""
        if self.size == 1:
            return number
        found = torch.tensor(number, device=_device())
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return int(found)

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.broadcast_float(0.0)

    def broadcast_(self, tensors: Collection[Tensor]) -> None:
        """Give tensors the values that they have in the first process, in place.

        On a GPU even equal computations may differ in the last bits. Sharded tensors stay as they are.
        """
        for tensor in tensors if self.size > 1 else ():
            if not is_shard(tensor):
                dist.broadcast(tensor.detach(), 0)

    def average_gradients(self, gradients: Sequence[Tensor | None], weights: Sequence[Tensor]) -> list[Tensor | None]:
        """The mean over all processes of each weight's gradient; None where no process has one.

        An optimizer skips a weight without gradient, while one with a gradient of 0 decays and keeps its momentum. FSDP
        has already averaged the gradients of sharded weights.
        """
        if self.size == 1:
            return list(gradients)
        there = torch.tensor([float(gradient is not None) for gradient in gradients], device=_device())
        dist.all_reduce(there)
        found: list[Tensor | None] = list(gradients)
        for i, (weight, somewhere) in enumerate(zip(weights, there.tolist(), strict=True)):
            if somewhere and not is_shard(weight):
                own = found[i]
                mean = torch.zeros_like(weight) if own is None else own
                dist.all_reduce(mean)
                found[i] = mean.div_(self.size)
        return found

    def largest(self, weights: Collection[nn.Parameter]) -> float:
        """The largest absolute value among the weights; NaN counts as infinite if they are sharded."""
        here = [held for weight in weights if (held := local_shard(weight)).numel()]
        ends = [end for held in here for end in torch.aminmax(held)]  # on a CPU ten times as fast as the maximum norm
        found = torch.stack(ends).abs().max() if ends else torch.zeros((), device=_device())
        if any(is_shard(weight) for weight in weights):
            found = found.float().nan_to_num(nan=math.inf)
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return float(found)


class _Gathered(torch.autograd.Function):
    """All-gather of rows whose gradient flows to the process's own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], rank: int) -> Tensor:
        start = sum(counts[:rank])
        ctx.own, ctx.size = slice(start, start + counts[rank]), len(counts)
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        of_all = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(of_all, padded)
        return torch.cat([of_one[:count] for of_one, count in zip(of_all, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.own] * ctx.size, None, None


ALONE = World()


def world() -> World:
    """The world of this process: all of torch's process group, or this process alone if there is none."""
    return World(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else ALONE


_SHARDING = ContextVar("sharding", default=False)


@contextmanager
def sharding(on: bool = True) -> Iterator[None]:
    """Within the block, models that are loaded are sharded over the processes (`study.engine.fsdp`) if `on`."""
    token = _SHARDING.set(on)
    try:
        yield
    finally:
        _SHARDING.reset(token)


def is_sharding() -> bool:
    """Whether a model that is loaded is sharded."""
    return _SHARDING.get()


def _device() -> torch.device:
    """The device on which the process group exchanges tensors."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
