"""Less memory for the same numbers: micro-batches, activation checkpointing, halved batches of questions.

A loss may be any function of a whole batch, so a training batch is never made smaller. Its rows, which do not see each
other, go through the model in micro-batches instead, and the activations of a micro-batch are computed again in the
backward pass (arXiv 1604.06174): every loss, gradient and draw stays the same, up to float rounding and the draws of
dropout.
"""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from study.engine.world import ALONE, World, is_sharding, world

T = TypeVar("T")
R = TypeVar("R")
Run = Callable[[slice], Sequence[Tensor]]
Pass = Callable[[Callable[[], list[Tensor]]], list[Tensor]]
"""How a forward pass is run: it gathers the weights of a sharded model."""


class DoesNotFit(RuntimeError):
    """There is not enough memory even for the smallest pieces."""


class RestartFiner(RuntimeError):
    """One of several processes ran out of memory: all of them must restart with `count` micro-batches."""

    def __init__(self, count: int, short: str) -> None:
        super().__init__(f"out of memory ({short}): to be restarted with {count} micro-batches")
        self.count, self.short = count, short

    def __reduce__(self) -> tuple[type[RestartFiner], tuple[int, str]]:
        return type(self), (self.count, self.short)


def _again_later(run: Run, rows: slice, like: Tensor) -> Sequence[Tensor]:
    """`run(rows)`, which is run again in the backward pass, if there will be one."""
    if not torch.is_grad_enabled():
        return run(rows)
    # `like` is handed on for its device alone: torch restores the random numbers of the devices it is given
    return cast(Sequence[Tensor], checkpoint(lambda some, _: run(some), rows, like, use_reentrant=False))


def _at_once(computed: Callable[[], list[Tensor]]) -> list[Tensor]:
    return computed()


@dataclass
class MicroBatching:
    """How the rows of a forward pass are split: among processes, then in time. Copies of a model share one object."""

    count: int = 1
    """Micro-batches of a forward pass, if it has so many rows; `map_halving_on_oom` splits those of scoring."""
    rows: int = 0
    """The maximum number of rows of such a forward pass so far, in this process."""
    world: World = ALONE
    """The processes that share every forward pass; outside a training step each computes all rows by itself."""

    @property
    def divisible(self) -> bool:
        """Whether forward passes can be split further."""
        return self.rows > 0 and self.count < max(2, self.rows)

    def over(self, like: Tensor, run: Run, passed: Pass = _at_once) -> list[Tensor]:
        """The results of `run` for all rows of `like`; for a slice of rows it returns tensors with these rows first.

        `passed` runs the model. With several micro-batches it is run again in the backward pass. If there are fewer
        rows than processes, some compute the first row for nothing: all must run the layers of a sharded model.
        """
        rows = self.world.row_slice(len(like))
        idle = rows.start == rows.stop
        made = passed(lambda: self._in_chunks(like, slice(0, 1) if idle else rows, run))
        return self.world.gathered([tensor[:0] for tensor in made] if idle else made)

    def _in_chunks(self, like: Tensor, rows: slice, run: Run) -> list[Tensor]:
        count = rows.stop - rows.start
        self.rows = max(self.rows, count)
        if self.count == 1:
            return list(run(rows))
        size = math.ceil(count / self.count)
        chunks = [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]
        return [torch.cat(tensors) for tensors in zip(*(_again_later(run, some, like) for some in chunks), strict=True)]

    @contextmanager
    def shared(self) -> Iterator[World]:
        """Within the block, all processes share every forward pass."""
        self.world = world()
        try:
            yield self.world
        finally:
            self.world = ALONE


_FIRST = ContextVar("first", default=1)


@contextmanager
def starting_at(count: int) -> Iterator[None]:
    """Within the block, `retry_on_oom` starts with `count` micro-batches."""
    token = _FIRST.set(count)
    try:
        yield
    finally:
        _FIRST.reset(token)


def retry_on_oom(attempt: Callable[[MicroBatching], T], estimate: Callable[[], str]) -> T:
    """The result of `attempt`, which restarts with twice as many micro-batches whenever it runs out of memory.

    Raises `RestartFiner` where several processes work together, as one cannot restart by itself, and `DoesNotFit` with
    the `estimate` of the required memory where nothing can be split further. Forward passes of a sharded model are not
    split: all processes would have to run equally many micro-batches.
    """
    chunks = MicroBatching(_FIRST.get())
    while True:
        try:
            return attempt(chunks)
        except torch.OutOfMemoryError as error:
            short, again = str(error), chunks.divisible and not is_sharding()
            if again and world().size > 1:
                raise RestartFiner(2 * chunks.count, short) from error
        release()  # not before here: the error holds on to the tensors of the attempt
        if not again:
            finest = "" if chunks.divisible else " with one row at a time"
            together = ", for the whole of a sharded model" if is_sharding() else ""
            raise DoesNotFit(
                f"out of memory{finest} ({short}). Calculated requirement{together}: {estimate()}. Set the schedule's "
                "checkpoint=True or lora_rank, draw fewer pictures per step, train fewer parts, or use more memory: a "
                "larger GPU, more GPUs per job (--gpus-per-trial), or a model sharded over them (--sharded)"
            )
        chunks = MicroBatching(2 * chunks.count)


def map_halving_on_oom(pieces: Iterable[Sequence[T]], work: Callable[[Sequence[T]], Sequence[R]]) -> Iterator[R]:
    """The results of all items, computed piece by piece; a piece that does not fit into memory is halved.

    Later pieces are cut to the same size. Raises `DoesNotFit` for an item that does not fit by itself, and where models
    are sharded, because the other processes wait in the middle of the same pass.
    """
    most: int | None = None
    for piece in pieces:
        done = 0
        while done < len(piece):
            some = piece[done:][:most]
            found = _unless_short(work, some)
            if found is None:
                if most is None:
                    warnings.warn(f"out of memory with {len(some)} rows: batches are halved from now on", stacklevel=2)
                most = len(some) // 2
            else:
                yield from found
                done += len(some)


def _unless_short(work: Callable[[Sequence[T]], Sequence[R]], some: Sequence[T]) -> Sequence[R] | None:
    try:
        return work(some)
    except torch.OutOfMemoryError as error:
        if len(some) == 1:
            raise DoesNotFit(f"out of memory with a single row ({error}): use a GPU with more memory") from error
        if is_sharding():  # the others wait in the middle of this pass
            raise DoesNotFit(f"out of memory ({error}): shard the model over more GPUs") from error
    release()
    return None


def release() -> None:
    """Return the memory of unreferenced tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def activation_checkpointing(model: nn.Module) -> Iterator[None]:
    """Within the block, layers in training keep only their inputs and are run again in the backward pass."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = False
            del layer._gradient_checkpointing_func
