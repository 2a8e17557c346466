"""The delta of a model: the tensors that training changed, or the adapters that did; how to find, apply and undo it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor

from study.core.files import writes
from study.engine.sharded_tensors import full_tensor, is_shard, local_shard, overwrite, shard_like
from study.engine.world import world
from study.model.adapter import Adapter, adapters_in, weight_of
from study.model.vlm import VLM


@contextmanager
def restored(vlm: VLM, before: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block, `vlm` may be changed in any way; afterwards its tensors are `before` again, bit for bit."""
    try:
        yield
    finally:
        restore(vlm, before)


def restore(vlm: VLM, before: Mapping[str, Tensor]) -> None:
    """Make the tensors of `vlm` those of `before` again, bit for bit, on whatever device these are."""
    if vlm.sharded is not None:
        vlm.sharded.forget_passes()
    for parameter in vlm.model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    apply_delta(vlm, {name: before[name] for name in changed(vlm, before)})


def delta(vlm: VLM, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that has to be stored of a trial's model: the tensors of `vlm` that differ from `before`.

    Of a tensor that a merged adapter gives bit for bit, the factors are kept. Tensors of a sharded model are gathered
    in main memory by the process that writes files.
    """
    there, found = vlm.tensors(), dict[str, Tensor]()
    for name in changed(vlm, before):
        adapter = _adapter(vlm, name, before)
        found |= {name: _gathered(there[name])} if adapter is None else adapter.stored(name)
    return found


def _adapter(vlm: VLM, name: str, before: Mapping[str, Tensor]) -> Adapter | None:
    """The adapter that turns a tensor of `before` into that of `vlm`, if there is one.

    Of a sharded tensor it is that of the first process, and must give the shards of all.
    """
    adapter, after = vlm.adapters.get(name), vlm.tensors()[name]
    if adapter is None:
        return None
    if vlm.sharded is None:
        return adapter if adapter.gives(after, before[name]) else None
    first = world().broadcast_from_first(lambda: adapter)
    return first if world().all_min(int(first.gives(after, before[name]))) else None


def changed(vlm: VLM, before: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that differ, in any process."""
    here = [
        n for n, p in vlm.tensors().items() if not torch.equal(local_shard(p), local_shard(shard_like(before[n], p)))
    ]
    if vlm.sharded is None:
        return here
    everywhere = set(chain.from_iterable(world().all_gather_objects(here)))
    return [name for name in vlm.tensors() if name in everywhere]


def _gathered(tensor: Tensor) -> Tensor:
    if not is_shard(tensor):
        return tensor
    gathered = full_tensor(tensor)
    return gathered.cpu() if writes() else tensor


def apply_delta(vlm: VLM, kept: Mapping[str, Tensor]) -> None:
    """Write stored tensors into `vlm`, in place, and merge stored adapters into its weights.

    Adapters are merged into what is there, which must be what they were trained on. Raises `ValueError` for a name or
    shape the model does not have.
    """
    there, adapters = dict(vlm.model.named_parameters()), adapters_in(kept)
    shapes = {name: tensor.shape for name, tensor in kept.items() if weight_of(name) == name}
    shapes |= {name: torch.Size((len(adapter.up), adapter.down.shape[1])) for name, adapter in adapters.items()}
    for name, shape in shapes.items():
        if name not in there or there[name].shape != shape:
            raise ValueError(f"weights for {name} {tuple(shape)} do not fit this model")
    for name in shapes:
        if name in adapters:
            adapters[name].merge_into(there[name])
        else:
            overwrite(there[name], kept[name])


def names_in(kept: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that a stored delta changes."""
    return list(dict.fromkeys(map(weight_of, kept)))
