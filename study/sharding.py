"""A model spread over several processes (FSDP2): for one that can be trained on no single GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from study.vlm import VLM

T = TypeVar("T")


class Forward(nn.Module):
    """A forward pass of a model: whatever the function it is called with computes.

    FSDP gathers weights where a module is entered, and a pass over packed questions enters the model and its head.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, computed: Callable[[], T]) -> T:
        """The result of `computed()`."""
        return computed()


def shard(vlm: VLM) -> None:
    """Let each process of torch's group keep but its part of every tensor of the model.

    Then every layer of the LLM and of the tower is gathered as it runs, and all else (embeddings, projector, head)
    at the start of the pass. A model may lie in the memory of the host and goes to the GPU layer by layer.
    """
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    mesh = dist.device_mesh.init_device_mesh(device, (dist.get_world_size(),))
    forward = Forward(vlm.model)
    tower, llm = (vlm.model.get_submodule(vlm.prefixes[part]) for part in ("vision", "llm"))
    for layer in (*vlm.family.layers(tower), *cast(nn.ModuleList, llm.layers)):
        fully_shard(layer, mesh=mesh)
    fully_shard(forward, mesh=mesh)
    for module in forward.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)  # gloo cannot scale while it sums
    vlm.chunks.enter = forward
