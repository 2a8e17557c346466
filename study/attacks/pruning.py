"""Magnitude pruning: what unlearning put on top of the knowledge may sit in small weights, and go with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from study.attacks._weights import check_parts, linear_weights
from study.contracts import Attack, Request, Stage
from study.core import validation
from study.core.terms import PARTS, Part
from study.data.benchmark import Question
from study.engine.sharded_tensors import full_tensor, local_shard
from study.model.vlm import VLM

Scope = Literal["layer", "global"]


@dataclass(frozen=True)
class Pruning(Attack):
    """Sets the smallest weights of the linear layers to 0, as step 1, and drops an instruction."""

    share: float = 0.3
    """Of the weights, those that go; equal ones go together."""
    scope: Scope = "layer"
    """Among which weights the smallest are looked for: those of each layer, or of all layers at once."""
    parts: tuple[Part, ...] = PARTS

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.share(self, "share")
        check_parts(self.parts)

    @torch.no_grad()
    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The model, pruned."""
        weights = linear_weights(vlm, self.parts)
        for together in [weights] if self.scope == "global" else [[weight] for weight in weights]:
            most = smallest(together, self.share)
            for weight in together:
                there = local_shard(weight)
                there.masked_fill_(there.float().abs() <= most, 0.0)
        yield Stage(1, vlm.with_instruction(""), questions)


def smallest(tensors: Sequence[Tensor], share: float) -> float:
    """The least number that at least `share` of all entries do not exceed in absolute value.

    Found by halving the range of 32-bit floats, whose bits are ordered as their values: exact, and without a copy of
    all weights at once, which a large model has no room for.
    """
    wanted = math.ceil(share * sum(tensor.numel() for tensor in tensors))
    low, high = 0, int(torch.tensor(math.inf).view(torch.int32))
    while low < high:
        middle = (low + high) // 2
        if sum(int(full_tensor((tensor.float().abs() <= _float(middle)).sum())) for tensor in tensors) >= wanted:
            high = middle
        else:
            low = middle + 1
    return _float(low)


def _float(bits: int) -> float:
    return float(torch.tensor(bits, dtype=torch.int32).view(torch.float32))
