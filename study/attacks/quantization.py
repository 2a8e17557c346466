"""Quantization: unlearning that moved the weights by less than a rounding step is rounded away (arXiv 2410.16454).

Weights are rounded and put back as ordinary numbers, so what is scored is what a quantized model would compute with
exact arithmetic between its layers. No calibration data and no library: the same on CPU and GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from study.attacks._weights import check_parts, linear_weights
from study.contracts import Attack, Request, Stage
from study.core import validation
from study.core.terms import PARTS, Part
from study.data.benchmark import Question
from study.engine.sharded_tensors import full_tensor, overwrite
from study.model.quantization import Format, rounded
from study.model.vlm import VLM


@dataclass(frozen=True)
class Quantization(Attack):
    """Rounds every linear layer of the parts, as step 1, and drops an instruction.

    A weight becomes the nearest value of the format's codebook in [-1, 1] times the largest absolute weight of its
    group: k / 127 for int8, k / 7 for int4 (round to nearest, symmetric), the sixteen values of QLoRA for NF4.
    """

    format: Format = "int4"
    parts: tuple[Part, ...] = PARTS
    group_size: int = 0
    """Weights that share a scale; 0 for the format's own: an output channel for the integers, 64 for NF4. Integers are
    grouped within a channel, NF4 along the flattened weight; the last group may be smaller."""
    head: bool = False
    """Whether the output head is rounded too, and with it embeddings that are tied to it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.not_negative(self, "group_size")
        check_parts(self.parts)

    @torch.no_grad()
    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The model, rounded."""
        for weight in linear_weights(vlm, self.parts, head=self.head):
            overwrite(weight, self.rounded(full_tensor(weight)))
        yield Stage(1, vlm.with_instruction(""), questions)

    def rounded(self, weight: Tensor) -> Tensor:
        """A weight (out, in) as the format holds it, in its own type; what is rounded already stays bit for bit."""
        return rounded(weight, self.format, self.group_size)
