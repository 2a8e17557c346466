"""Adapter removal: unlearning that ships as an adapter beside a model can be left off, or turned down.

An adapter is the whole of what its training did: who holds it holds the model of before. The task arithmetic of Ilharco
et al. (arXiv 2212.04089), used against the defence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from study.attacks._weights import check_parts
from study.contracts import Attack, InChain, Request, Stage
from study.core.errors import Refused
from study.core.terms import PARTS, Part
from study.data.benchmark import Question
from study.engine.sharded_tensors import shard_like
from study.model.delta import apply_delta, changed
from study.model.vlm import VLM


@dataclass(frozen=True)
class AdapterScaling(Attack):
    """theta_start + s (theta - theta_start) for each s of `scales`, as steps 1, 2, ...; drops an instruction.

    theta_start is the model that the method began with. s = 0 takes the adapter off, which gives that model back bit
    for bit; s < 0 goes the other way. A model that nothing changed is shown as it is.
    """

    scales: tuple[float, ...] = (0.5, 0.0)
    """The adapter's weight at each step. The attack counts at the step that brings the most back."""
    parts: tuple[Part, ...] = PARTS
    """Where the adapter is scaled; elsewhere it stays on."""
    in_chain: ClassVar[InChain] = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_parts(self.parts)
        if not self.scales or not all(map(math.isfinite, self.scales)):
            raise ValueError(f"scales={self.scales}: name one or more finite numbers, such as 0.5+0.0")

    @torch.no_grad()
    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The model at each of `scales`.

        Raises `Refused` if the method changed the model otherwise than by an adapter, or if the LLM is among the
        parts and quantized.
        """
        vlm.check_changeable(self.parts)
        start = request.start()
        found = changed(vlm, start)
        if found and not request.adapter:
            raise Refused(
                "the method trained whole weights, there is no adapter to take off: leave adapter_scaling out, or set "
                "the method's lora_rank"
            )
        there = vlm.tensors()
        adapted = {name: there[name].clone() for name in found if vlm.part_of(name) in self.parts}
        target = vlm.with_instruction("")
        for step, scale in enumerate(self.scales, 1):
            apply_delta(
                vlm, {name: shard_like(start[name], tensor).lerp(tensor, scale) for name, tensor in adapted.items()}
            )
            yield Stage(step, target, questions)
