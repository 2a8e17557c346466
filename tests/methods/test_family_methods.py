"""Every method on other families than LLaVA trains exactly what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from study.contracts import Request
from study.core.plugins import find, known
from study.data.benchmark import Benchmark
from study.methods.rmu import RMU
from study.model.packing import Group, Prompt, logits, pack
from study.training.schedule import Schedule
from tests.helpers.small import changed, fresh, quick, request_on, snapshot, trained

FAMILIES = ("idefics2", "idefics3", "qwen2_5_vl")  # LLaVA's turn is in test_methods.py
STEP = Schedule(steps=1, learning_rate=1e-3, pictures=2, lessons_per_picture=2, texts=1, lessons_per_text=2)


def method_on(name: str) -> Any:
    """The method in a short form, on a layer that a two-layer model has."""
    method = quick(find("methods", name)(), STEP)
    return quick(method, STEP, layer=1) if isinstance(method, RMU) else method


@pytest.fixture
def request_(benchmark: Benchmark, family_folders: dict[str, Path], tmp_path: Path, family: str) -> Request:
    return request_on(benchmark, tmp_path / "cache", family_folders[family])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", known("methods"))
def test_exactly_the_declared_parts_are_trained(
    name: str, family: str, family_folders: dict[str, Path], request_: Request
) -> None:
    """Every other tensor is what it was, bit for bit, and so is what a frozen LLM says without a picture."""
    vlm, method = fresh(family_folders[family]), method_on(name)
    asked = [Group(None, (Prompt(x.prompt, (x.answer,)),)) for x in request_.split.lessons if x.picture is None][::80]
    before, said = snapshot(vlm), logits(vlm, pack(vlm, asked))
    after = method(vlm, request_).with_instruction("")
    moved = changed(before, snapshot(after))
    tied = {"lm_head.weight"} if "llm" in trained(method) else set()
    assert moved <= set(vlm.trainable(tuple(trained(method)))) | tied
    assert {vlm.part_of(tensor) for tensor in moved} == trained(method)
    assert torch.equal(logits(after, pack(after, asked)), said) == ("llm" not in trained(method))
