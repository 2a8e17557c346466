"""What the visual module says of pictures, apart from the model that said it. Shapes: B pictures, N tokens, D width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What a visual module says of B pictures: one (B, N, D) tensor per vision layer, and the projected tokens."""

    layers: tuple[Tensor, ...]
    projected: Tensor

    def __getitem__(self, rows: Any) -> Features:
        return Features(tuple(layer[rows] for layer in self.layers), self.projected[rows])


def gathered(parts: Sequence[Features]) -> Features:
    """One batch out of several."""
    if len(parts) == 1:
        return parts[0]
    layers = tuple(torch.cat(tensors) for tensors in zip(*(part.layers for part in parts), strict=True))
    return Features(layers, torch.cat([part.projected for part in parts]))
