"""Operations and passes of the LLM within a block of code, on meta tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from study.model.vlm import VLM


@dataclass
class Count:
    """What was done in the block, once it is over."""

    tflop: float = 0.0
    """Of matrix products, convolutions and attention, forward and backward, 2 for a multiplication and addition."""
    passes: int = 0
    """Forward passes of the LLM."""


@contextmanager
def countable() -> Iterator[None]:
    """Let a model run on meta tensors, its attention as matrix products that torch counts.

    The switch is transformers' own: its check that placeholders match pictures would read a value.
    """
    with patch.dict(os.environ, TRANSFORMERS_DISABLE_TORCH_CHECK="1"), sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def counted(vlm: VLM) -> Iterator[Count]:
    """Count what is done within the block, by this model and by copies of it."""
    count, llm = Count(), type(vlm.model.get_submodule(vlm.prefixes["llm"]))

    def called(module: nn.Module, _: Any) -> None:
        count.passes += isinstance(module, llm)

    handle = register_module_forward_pre_hook(called)
    try:
        with countable(), FlopCounterMode(display=False) as counter:
            yield count
    finally:
        handle.remove()
    count.tflop = counter.get_total_flops() / 1e12
