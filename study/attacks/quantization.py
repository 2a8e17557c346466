"""Quantisation: unlearning that moved the weights by less than a rounding step is rounded away (arXiv 2410.16454).

Weights are rounded and put back as ordinary numbers, so what is scored is what a quantised model would compute with
exact arithmetic between its layers. No calibration data and no library: the same on CPU and GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from study import checks
from study.attacks._weights import check_parts, linear_weights
from study.contracts import Request, Stage
from study.parallel import overwrite, whole
from study.questions import Lesson, Question
from study.vlm import PARTS, VLM, Part

Format = Literal["int8", "int4", "nf4"]

# QLoRA, arXiv 2305.14314, appendix E: quantiles of a normal distribution, scaled to [-1, 1], with an exact 0
NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)  # fmt: skip
NF4_BLOCK = 64


@dataclass(frozen=True)
class Quantization:
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
        checks.choice(self, "format", get_args(Format))
        checks.not_negative(self, "group_size")
        check_parts(self.parts)

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """No lesson."""
        return ()

    @torch.no_grad()
    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The model as found, then rounded."""
        yield Stage(0, vlm, questions)
        for weight in linear_weights(vlm, self.parts, head=self.head):
            overwrite(weight, self.rounded(whole(weight)))
        yield Stage(1, vlm.with_instruction(""), questions)

    def rounded(self, weight: Tensor) -> Tensor:
        """A weight (out, in) as the format holds it, in its own type; what is rounded already stays bit for bit."""
        rows = weight.reshape(1, -1) if self.format == "nf4" else weight
        size = self.group_size or (NF4_BLOCK if self.format == "nf4" else rows.shape[1])
        missing = -rows.shape[1] % size
        groups = pad(rows.float(), (0, missing)).reshape(len(rows), -1, size)
        largest = groups.abs().amax(-1, keepdim=True)
        codebook = self.codebook(weight.device)
        shares = groups / largest.where(largest > 0, torch.ones_like(largest))
        nearest = codebook[torch.bucketize(shares, (codebook[1:] + codebook[:-1]) / 2)]
        whole = (nearest * largest).reshape(len(rows), -1)[:, : rows.shape[1]]
        return whole.reshape(weight.shape).to(weight.dtype)

    def codebook(self, device: torch.device | None = None) -> Tensor:
        """The values of the format, in rising order, as shares of the largest weight of a group."""
        if self.format == "nf4":
            return torch.tensor(NF4, device=device)
        most = {"int8": 127, "int4": 7}[self.format]
        return torch.arange(-most, most + 1, device=device) / most
