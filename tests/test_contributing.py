"""The example of CONTRIBUTING.md is a method that works."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import optuna
import pytest
import torch

from study.contracts import Request
from study.data.benchmark import Benchmark
from study.model.vlm import VLM
from study.training.schedule import Schedule
from tests import ROOT

DOCUMENT = ROOT / "CONTRIBUTING.md"
NAMES = ("study.methods.retain_finetuning", "search_spaces.retain_finetuning")


def test_the_example_is_a_method_with_a_search_space(
    tiny: VLM, benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == len(NAMES)
    for name, code in zip(NAMES, blocks, strict=True):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, name, "exec"), module.__dict__)
    schedule = Schedule(steps=2, learning_rate=1e-2, pictures=2, lessons_per_picture=2)
    default = sys.modules[NAMES[0]].RetainFinetuning(schedule=schedule)
    asked = optuna.create_study().ask()
    proposed = sys.modules[NAMES[1]].space(asked, default)
    assert proposed == replace(
        default,
        schedule=replace(schedule, learning_rate=asked.params["learning_rate"], steps=asked.params["steps"]),
    )

    def nobody() -> VLM:
        raise AssertionError("the method needs no other model")

    request = Request(benchmark.split(15), "visual", (), 0, tmp_path, nobody, nobody, dict)
    before = {name: weight.clone() for name, weight in tiny.tensors().items()}
    after = proposed(tiny, request).tensors()
    assert any(not torch.equal(before[name], weight) for name, weight in after.items())
