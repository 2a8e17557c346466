"""Several processes that do one job together: each computes its rows of every training batch, its share of questions.

A loss may be any function of a whole batch. So forwards are what is shared (`study.engine.microbatches`): each process
computes some rows, all get the results of all rows, and the loss is the same everywhere. On the way back each process
follows only its own rows, times the number of processes, and gradients are averaged before the optimizer's step: what
came from rows is added up, and what every process computed in full, such as a penalty on weights, counts once. What is
learned does not depend on the number of processes, to float rounding.

Gradients are exchanged after the backward pass, tensor by tensor. DistributedDataParallel would overlap the two, but
wants the whole forward pass behind its own `forward`, while methods call parts of the model, and often.
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
    """The processes of torch's process group, and which of them this is.

    All of them run the same code on the same data, and call every method here in the same order. In a world of one
    nothing is exchanged and nothing computed otherwise than without it.
    """

    rank: int = 0
    size: int = 1

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """What of some work this process does; nothing, if there is less than one item for each."""
        return items[self.rank :: self.size]

    def row_slice(self, rows: int) -> slice:
        """The rows of a batch that this process computes, those of all being in order; none if there are too few."""
        return slice(self.rank * rows // self.size, (self.rank + 1) * rows // self.size)

    def gathered(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The rows of all processes, in order, of tensors that have equally many rows in a process.

        A gradient goes back to one's own rows, times the number of processes.
        """
        if self.size == 1:
            return list(tensors)
        counts = torch.zeros(self.size, dtype=torch.long, device=tensors[0].device)
        counts[self.rank] = len(tensors[0])
        dist.all_reduce(counts)
        return [_Gathered.apply(rows, counts.tolist(), self.rank) for rows in tensors]  # type: ignore[no-untyped-call]

    def broadcast_from_first(self, look: Callable[[], T]) -> T:
        """What the first process finds: two that look at a folder others write to may see different things."""
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
        """The number that the first process has. None is told before all have asked."""
        if self.size == 1:
            return value
        number = torch.tensor(value if self.rank == 0 else 0.0, dtype=torch.float64, device=_device())
        dist.all_reduce(number)
        return float(number)

    def all_min(self, number: int) -> int:
        """The smallest of the numbers that the processes have."""
        if self.size == 1:
            return number
        found = torch.tensor(number, device=_device())
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return int(found)

    def barrier(self) -> None:
        """Until all processes are here."""
        self.broadcast_float(0.0)

    def broadcast_(self, tensors: Collection[Tensor]) -> None:
        """Give tensors the values that they have in the first process, in place.

        On a GPU even the same computation may differ in the last bits. Parts of a sharded tensor stay as they are.
        """
        for tensor in tensors if self.size > 1 else ():
            if not is_shard(tensor):
                dist.broadcast(tensor.detach(), 0)

    def average_gradients(self, gradients: Sequence[Tensor | None], weights: Sequence[Tensor]) -> list[Tensor | None]:
        """The mean over all processes of each weight's gradient; nothing where no process has one.

        (An optimizer leaves such a weight alone, while one with a gradient of 0 decays and keeps its momentum.) FSDP
        has averaged those of sharded weights by itself.
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
        """The largest absolute value among the weights; what is no number counts as infinite if they are sharded."""
        here = [held for weight in weights if (held := local_shard(weight)).numel()]
        found = (
            torch.stack(torch._foreach_norm(here, ord=math.inf)).max() if here else torch.zeros((), device=_device())
        )
        if any(is_shard(weight) for weight in weights):
            found = found.float().nan_to_num(nan=math.inf)
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return float(found)


class _Gathered(torch.autograd.Function):
    """Rows of all processes out of those of each."""

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


_SPREADING = ContextVar("spreading", default=False)


@contextmanager
def spreading(on: bool = True) -> Iterator[None]:
    """While the block lasts, models that are loaded are spread over the processes (`study.engine.fsdp`) if `on`."""
    token = _SPREADING.set(on)
    try:
        yield
    finally:
        _SPREADING.reset(token)


def spreads() -> bool:
    """Whether a model that is loaded is spread."""
    return _SPREADING.get()


def _device() -> torch.device:
    """Where the process group exchanges tensors."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
