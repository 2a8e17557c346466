"""Every method on every family trains exactly what it says, and every family goes through a study whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from study.base_models.hf import Hf
from study.contracts import Request
from study.core.hashing import content_key
from study.core.plugins import find, known
from study.core.rows import read_rows
from study.core.terms import PARTS, Dtype
from study.data.benchmark import Benchmark
from study.experiment import checkpoints
from study.experiment.checkpoints import load_learned, save, unlearned_model
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial import run as run_trial
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_difference import GradientDifference
from study.methods.rmu import RMU
from study.methods.vkd import VKD
from study.model.loading import Loading, load
from study.model.packing import Group, Prompt, logits, pack
from study.model.vlm import VLM
from study.stages.plan import identity_of
from study.training.lesson_sampler import Lessons
from study.training.schedule import Schedule
from tests.helpers import families
from tests.helpers.small import Given, changed, fresh, quick, request_on, same_bits, snapshot, trained

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


@pytest.mark.parametrize(
    ("family", "dtype"),
    [*((name, "float32") for name in families.FAMILIES), ("llava", "bfloat16"), ("qwen2_5_vl", "bfloat16")],
)
def test_a_family_goes_through_a_study(
    family: str,
    dtype: Dtype,
    family_folders: dict[str, Path],
    benchmark: Benchmark,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Learned, unlearned, scored and kept in its precision; what is loaded again says bit for bit the same."""
    monkeypatch.setattr(StudyContext, "benchmark", benchmark)
    model = Hf(family_folders[family], dtype=dtype)
    context = StudyContext(tmp_path, Given(benchmark), model(tmp_path), loading=Loading.of(model))
    vanilla = Learned("vanilla", content_key(identity_of(model)), "benchmark", None, None, STEP, PARTS, 0)
    learn(context, vanilla)
    groups = Lessons(benchmark.split(10).lessons, STEP, 0).draw()

    def said(vlm: VLM) -> list[Tensor]:
        return [logits(vlm, pack(vlm, [group])) for group in groups]

    def same(one: VLM, other: VLM) -> bool:
        return all(map(torch.equal, said(one), said(other)))

    for method in (VKD(schedule=STEP), GradientDifference(schedule=STEP),
                   GradientDifference(schedule=replace(STEP, lora_rank=2))):  # fmt: skip
        asked = Trial(vanilla, method, "visual", 10, 0)
        record = run_trial(context, asked, vanilla.key)
        assert record.state == "complete", record.reason
        assert read_rows(context.folder.rows(asked.key, "select"))["likelihood"].between(0, 1).all()
        request = context.request(asked, vanilla.key)
        assert {vlm.model.dtype for vlm in (request.base(), request.reference())} == {getattr(torch, dtype)}
        kept, _ = unlearned_model(context.folder, asked.key, load_learned(context.root, vanilla.key))
        start = load_learned(context.root, vanilla.key)
        assert same_bits(start.tensors(), request.start())
        assert not same(kept, start)
        assert same(kept, method(start, request))
        save(kept, tmp_path / "saved")
        assert same(kept, load(tmp_path / "saved", loading=context.loading))
    checkpoints.evict()
