"""Master weights: a model computes in bfloat16 while an optimizer moves float32 copies (arXiv 1710.03740).

A bfloat16 weight has eight binary digits, so most steps at the usual rates would be rounded away. Frozen weights need
no copy. After each step the model has its masters rounded, which is what its next forward pass, whoever scores it and
whoever stores it then see: nothing of a trained model is in more bits than the model itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from study.engine.sharded_tensors import overwrite


class MasterWeights:
    """What an optimizer moves in place of `weights`: float32 copies, or the weights themselves if they are float32."""

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        self.held = {
            name: weight if weight.dtype == torch.float32 else nn.Parameter(weight.detach().float())
            for name, weight in weights.items()
        }
        self._copied = [(weights[name], held) for name, held in self.held.items() if held is not weights[name]]

    def take_gradients(self) -> None:
        """Add what a backward pass left at the weights to the gradients of their copies."""
        for weight, held in self._copied:
            if weight.grad is not None:
                gradient = weight.grad.float()
                held.grad = gradient if held.grad is None else held.grad.add_(gradient)
                weight.grad = None

    def write(self) -> None:
        """Give the weights the values of their copies, rounded."""
        for weight, held in self._copied:
            overwrite(weight, held.detach())
