"""What is left of an adapter that has been merged: its factors, about a hundredth of the weights that they changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from study.engine.sharded_tensors import local_shard, shard_like

_DOWN, _UP, _SCALE = ".lora_A", ".lora_B", ".lora_scale"
"""What the names of stored factors end with, behind the name of the weight; no weight of a plain model is called so."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """The change of one weight, W + scale * up @ down, in main memory."""

    down: Tensor  # (R, in)
    up: Tensor  # (out, R)
    scale: float

    @torch.no_grad()
    def merge_into(self, weight: Tensor) -> None:
        """Add the change to a weight, of which this process may hold only a shard.

        The product is computed on the CPU, and a sum rounds alike everywhere: a model that was merged on a GPU is
        rebuilt bit for bit without one.
        """
        moved = self.up @ self.down * self.scale
        local_shard(weight).add_(local_shard(shard_like(moved, weight)))

    def gives(self, after: Tensor, before: Tensor) -> bool:
        """Whether merging turns `before` into `after`, bit for bit in what this process holds of it."""
        merged = shard_like(before, after).clone()
        self.merge_into(merged)
        return torch.equal(local_shard(merged), local_shard(after))

    def stored(self, name: str) -> dict[str, Tensor]:
        """The tensors in which the change of the weight called `name` is stored."""
        scale = torch.tensor(self.scale, dtype=torch.float64)
        return {f"{name}{_DOWN}": self.down, f"{name}{_UP}": self.up, f"{name}{_SCALE}": scale}


def adapters_in(kept: Mapping[str, Tensor]) -> dict[str, Adapter]:
    """The adapters among stored tensors, by the name of the weight. Raises `ValueError` if a factor is missing."""
    names = dict.fromkeys(weight_of(name) for name in kept if weight_of(name) != name)
    try:
        return {
            name: Adapter(kept[f"{name}{_DOWN}"], kept[f"{name}{_UP}"], float(kept[f"{name}{_SCALE}"]))
            for name in names
        }
    except KeyError as error:
        raise ValueError(f"weights for {error.args[0]} are missing") from None


def weight_of(name: str) -> str:
    """The name of the weight that a stored tensor belongs to: its own, unless it is a factor."""
    return next((name.removesuffix(end) for end in (_DOWN, _UP, _SCALE) if name.endswith(end)), name)
