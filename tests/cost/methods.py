"""What one optimizer step of a method costs on a model of meta tensors: the method's own code, up to the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args
from unittest.mock import patch

from torch import Tensor

from study.benchmarks.synthetic import Synthetic
from study.contracts import Request
from study.core.plugins import find
from study.core.specs import made, name_in
from study.model.flop_counter import counted
from study.model.vlm import VLM
from study.training import loop
from tests.cost.llava import on_meta

Name = Literal["vkd", "vkd:variant=features", "gradient_ascent", "gradient_difference", "npo", "kl_minimization"]
"""Published methods that read no value off a tensor before their first step, once VKD has no mask."""
METHODS: tuple[Name, ...] = get_args(Name)
UNMASKED: Mapping[str, Mapping[str, Any]] = {"vkd": {"saliency_threshold": 0.0}}
"""What leaves the mask out; behind it a step computes the same."""


@dataclass(frozen=True)
class StepCost:
    """What the first step of a method cost."""

    method: str
    tflop: float
    passes: int
    """Forward passes of the LLM."""


def request(vlm: VLM, folder: Path) -> Request:
    """Two of twenty made-up people are to be forgotten; what a method makes in advance is `vlm` too."""
    benchmark = Synthetic(people=20, celebrities=8, views=2, strangers=8)(folder)

    def loaded() -> VLM:
        return vlm

    return Request(benchmark.split(10), "full", benchmark.strangers, 0, folder / "cache", loaded, loaded, vlm.tensors)


def step_cost(vlm: VLM, name: Name, asked: Request, **fields: Any) -> StepCost:
    """The cost of a step of the method called `name`, with its default settings but for `fields`."""
    method = made(find("methods", name_in(name)), {**UNMASKED.get(name, {}), **fields}, name)
    found: list[StepCost] = []

    def step(_vlm: VLM, _weights: Any, _schedule: Any, loss: Callable[[int], Tensor], at: int, *_: Any) -> float:
        with counted(vlm) as count:
            loss(at).backward()
        found.append(StepCost(name, count.flops / 1e12, count.passes_of("llm")))
        return 0.0

    with on_meta(), patch.object(loop, "_step", step):
        replace(method, schedule=replace(method.schedule, steps=1))(vlm, asked)
    (cost,) = found
    return cost
