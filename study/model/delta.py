"""What training changes of a model: told from what was, written into another, put back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor

from study.core.files import writes
from study.engine.sharded_tensors import full_tensor, is_shard, local_shard, overwrite, shard_like
from study.engine.world import world
from study.model.vlm import VLM


@contextmanager
def restored(vlm: VLM, before: Mapping[str, Tensor]) -> Iterator[None]:
    """While the block lasts, `vlm` may be written to in any way; then its tensors are `before` again, bit for bit."""
    try:
        yield
    finally:
        restore(vlm, before)


def restore(vlm: VLM, before: Mapping[str, Tensor]) -> None:
    """Make the tensors of `vlm` those of `before` again, bit for bit, wherever these lie."""
    if vlm.spread is not None:
        vlm.spread.forget_passes()
    for parameter in vlm.model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    apply_delta(vlm, {name: before[name] for name in changed(vlm, before)})


def delta(vlm: VLM, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `vlm` that differ from `before`, wherever that lies: all that a trial has to keep.

    Those of a model that is spread over several processes are put together in main memory by the one that writes.
    """
    there = vlm.tensors()
    return {name: _gathered(there[name]) for name in changed(vlm, before)}


def changed(vlm: VLM, before: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that differ, in any process."""
    here = [
        n for n, p in vlm.tensors().items() if not torch.equal(local_shard(p), local_shard(shard_like(before[n], p)))
    ]
    if vlm.spread is None:
        return here
    everywhere = set(chain.from_iterable(world().all_gather_objects(here)))
    return [name for name in vlm.tensors() if name in everywhere]


def _gathered(tensor: Tensor) -> Tensor:
    if not is_shard(tensor):
        return tensor
    gathered = full_tensor(tensor)
    return gathered.cpu() if writes() else tensor


def apply_delta(vlm: VLM, kept: Mapping[str, Tensor]) -> None:
    """Write kept tensors into `vlm`, in place. Raises `ValueError` for a name or shape the model does not have."""
    there = dict(vlm.model.named_parameters())
    for name, tensor in kept.items():
        if name not in there or there[name].shape != tensor.shape:
            raise ValueError(f"weights for {name} {tuple(tensor.shape)} do not fit this model")
        overwrite(there[name], tensor)
