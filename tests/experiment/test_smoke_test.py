"""The smoke test of a model, apart from what the families' tests run of it."""

from __future__ import annotations

import pytest
import torch

from study.experiment import parity
from study.experiment.smoke_test import of_nobody, tried
from study.model.packing import Group
from study.model.vlm import VLM


def settings() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_a_gpu_compares_float32_as_such(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """And in between, and after a check that failed, computes as before."""
    seen: list[tuple[bool, bool]] = []

    def check(vlm: VLM, group: Group) -> str:
        seen.append(settings())
        raise ValueError("they differ")

    monkeypatch.setattr(parity, "prompts", check)
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        first = next(tried(tiny, of_nobody()))
        assert (first.state, seen, settings()) == ("failed", [(False, False)], (True, True))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
