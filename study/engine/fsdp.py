"""A model sharded over several processes (FSDP2): for one that no single GPU can hold or train."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import AutoModelForImageTextToText, PreTrainedModel

from study.engine.sharded_tensors import local_shard
from study.engine.world import world

T = TypeVar("T")


class ShardedForward(nn.Module):
    """Forward passes of a sharded model: any function that runs some of it.

    Each process of torch's group keeps only its shard of every tensor. Each of `layers` (`VLM.layers` says which) is
    gathered while it runs, and all else (embeddings, projector, head) at the start of a pass: FSDP gathers where a
    module is entered, and a pass over packed questions enters the model and its head. All processes must run the same
    layers in the same order, except within `independent_passes`. The model may be in host memory and moves to the GPU
    layer by layer.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.model = model
        self.begun = False
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        mesh = dist.device_mesh.init_device_mesh(device, (dist.get_world_size(),))
        for module in (*layers, self):  # between passes nothing is gathered, so shards can be read and written
            sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True)
            sharded.set_force_sum_reduction_for_comms(True)  # gloo cannot scale while it sums

    def forward(self, computed: Callable[[], T]) -> T:
        """The result of `computed()`."""
        return computed()

    def forward_pass(self, computed: Callable[[], T]) -> T:
        """Run `computed()` as a forward pass."""
        with warnings.catch_warnings():  # about views that must not be changed in place: nothing does
            warnings.filterwarnings("ignore", "FSDP2-wrapped module")
            self.begun = True
            return cast(T, self(computed))

    def forget_passes(self) -> None:
        """Reset what FSDP recorded of earlier passes: after an error the next one may have another order."""
        if self.begun:  # before the first pass FSDP has no such state, and resetting it fails
            cast(FSDPModule, self).reset_iter_state()

    @contextmanager
    def independent_passes(self) -> Iterator[None]:
        """Within the block each process may run any passes; the block ends when all processes have finished theirs.

        Before each layer all processes announce which layer they need next, and all gather the lowest of these. A
        process that waits for another, or has finished, contributes its shard.
        """
        root, *layers = (module for module in self.modules() if isinstance(module, FSDPModule))
        self.forward_pass(lambda: None)  # FSDP initializes itself in the first pass
        with ExitStack() as stack:
            stack.callback(self.forget_passes)
            stack.callback(root.set_reshard_after_forward, True, recurse=False)
            root.set_reshard_after_forward(False, recurse=False)
            root.unshard()
            for i, layer in enumerate(cast(list[nn.Module], layers)):
                hook = layer.register_forward_pre_hook(lambda *_, wanted=i: _lend(layers, wanted), prepend=True)
                stack.callback(hook.remove)
            yield
            _lend(layers, len(layers))


def _lend(layers: Sequence[FSDPModule], wanted: int) -> None:
    """Gather the layers that other processes need, until it is this process's turn."""
    while (first := world().all_min(wanted)) != wanted:
        layers[first].unshard()
        layers[first].reshard()


def copied(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same shape without values, to be filled by `fill` once both are sharded."""
    with torch.device("meta"):
        made = AutoModelForImageTextToText.from_config(
            copy.deepcopy(model.config), dtype=model.dtype, attn_implementation=model.config._attn_implementation
        )
    return cast(PreTrainedModel, made.eval().requires_grad_(False))


@torch.no_grad()
def fill(model: nn.Module, like: nn.Module) -> None:
    """Give a sharded model on the meta device copies of the tensors of another."""
    theirs: dict[str, Any] = dict(chain(like.named_parameters(), like.named_buffers()))
    model.to_empty(device=next(like.parameters()).device)
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        local_shard(tensor).copy_(local_shard(theirs[name]))
