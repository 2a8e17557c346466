"""Less memory for the same numbers: forwards in chunks of rows, layers computed twice, batches of questions halved.

A loss may be any function of a whole batch, so a batch of training is never made smaller. Its rows, which do not see
each other, go through the model in chunks instead, and what a chunk left behind is computed again when the backward
pass comes to it (arXiv 1604.06174): every loss, gradient and draw is what it was, to float rounding and but for the
draws of dropout.
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

from study.engine.world import ALONE, World, spreads, world

T = TypeVar("T")
R = TypeVar("R")
Run = Callable[[slice], Sequence[Tensor]]
Pass = Callable[[Callable[[], list[Tensor]]], list[Tensor]]
"""How a forward pass is made: the weights of a model that is spread are there while it lasts."""


class DoesNotFit(RuntimeError):
    """There is not enough memory even for the smallest pieces."""


class RestartFiner(RuntimeError):
    """One of several processes ran out of memory: all of them have to start anew with so many chunks."""

    def __init__(self, count: int, short: str) -> None:
        super().__init__(f"out of memory ({short}): to be started anew in {count} chunks")
        self.count, self.short = count, short

    def __reduce__(self) -> tuple[type[RestartFiner], tuple[int, str]]:
        return type(self), (self.count, self.short)


def _again_later(run: Run, rows: slice, like: Tensor) -> Sequence[Tensor]:
    """What `run` makes of some rows, to be run again on the way back, if there will be one."""
    if not torch.is_grad_enabled():
        return run(rows)
    # `like` is handed on for its device alone: torch restores the random numbers of the devices it is given
    return cast(Sequence[Tensor], checkpoint(lambda some, _: run(some), rows, like, use_reentrant=False))


def _at_once(computed: Callable[[], list[Tensor]]) -> list[Tensor]:
    return computed()


@dataclass
class MicroBatching:
    """How forwards are cut by rows: among processes, then in time. One object is shared by all copies of a model."""

    count: int = 1
    """Chunks that a forward is cut into, as far as it has rows; those of scoring are cut by `map_halving_on_oom`."""
    rows: int = 0
    """The most rows that such a forward had so far, in this process."""
    world: World = ALONE
    """The processes that share every forward: outside of a training step each computes all by itself."""

    @property
    def divisible(self) -> bool:
        """Whether there is something that could be cut more finely."""
        return self.rows > 0 and self.count < max(2, self.rows)

    def over(self, like: Tensor, run: Run, passed: Pass = _at_once) -> list[Tensor]:
        """What `run` makes of the rows of `like`: for a slice of them, tensors of which the first axis follows them.

        The model is run as `passed` says. If cut into chunks, it is run again on the way back. Where there are fewer
        rows than processes some compute the first for nothing: a model that is spread is run by all or none.
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
        """While the block lasts, all processes of this one's world share every forward."""
        self.world = world()
        try:
            yield self.world
        finally:
            self.world = ALONE


_FIRST = ContextVar("first", default=1)


@contextmanager
def starting_at(count: int) -> Iterator[None]:
    """While the block lasts, what is tried begins with so many chunks."""
    token = _FIRST.set(count)
    try:
        yield
    finally:
        _FIRST.reset(token)


def retry_on_oom(attempt: Callable[[MicroBatching], T], estimate: Callable[[], str]) -> T:
    """What `attempt` returns, which starts anew with forwards cut twice as finely whenever it runs out of memory.

    Raises `RestartFiner` where several processes work together, as one of them cannot start anew by itself, and
    `DoesNotFit` with the `estimate` of what is needed where there is nothing left to cut. Nor is a spread model's
    forward cut: all processes would have to run as many chunks.
    """
    chunks = MicroBatching(_FIRST.get())
    while True:
        try:
            return attempt(chunks)
        except torch.OutOfMemoryError as error:
            short, again = str(error), chunks.divisible and not spreads()
            if again and world().size > 1:
                raise RestartFiner(2 * chunks.count, short) from error
        release()  # not before here: the error holds on to the tensors of the attempt
        if not again:
            finest = "" if chunks.divisible else " with one row at a time"
            together = ", by the whole of a spread model" if spreads() else ""
            raise DoesNotFit(
                f"out of memory{finest} ({short}). Needed by arithmetic{together}: {estimate()}. Set the schedule's "
                "checkpoint=True or lora_rank, draw fewer pictures per step, train fewer parts, or use more memory: a "
                "larger GPU, more of them for a job (--gpus-per-trial), the model spread over them (--sharded)"
            )
        chunks = MicroBatching(2 * chunks.count)


def map_halving_on_oom(pieces: Iterable[Sequence[T]], work: Callable[[Sequence[T]], Sequence[R]]) -> Iterator[R]:
    """The results of all items, worked on piece by piece; a piece that does not fit into memory is halved.

    Those after it are cut as small at once. Raises `DoesNotFit` for an item that does not fit by itself, and where
    models are spread over processes, which then wait for one another.
    """
    most: int | None = None
    for piece in pieces:
        done = 0
        while done < len(piece):
            some = piece[done:][:most]
            found = _unless_short(work, some)
            if found is None:
                if most is None:
                    warnings.warn(f"out of memory with {len(some)} rows: halved from here on", stacklevel=2)
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
        if spreads():  # the others wait in the middle of this pass
            raise DoesNotFit(f"out of memory ({error}): spread the model over more GPUs") from error
    release()
    return None


def release() -> None:
    """Give back the memory of what nobody refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def activation_checkpointing(model: nn.Module) -> Iterator[None]:
    """While the block lasts, layers in training keep only what they are given and are run again on the way back."""
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
