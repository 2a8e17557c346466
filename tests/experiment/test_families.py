"""Every family goes through a study whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from study.base_models.hf import Hf
from study.core.hashing import content_key
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
from study.methods.vkd import VKD
from study.model.loading import Loading, load
from study.model.packing import logits, pack
from study.model.vlm import VLM
from study.stages.plan import identity_of
from study.training.lesson_sampler import Lessons
from study.training.schedule import Schedule
from tests.helpers.families import FAMILIES
from tests.helpers.small import Given, few_questions, same_bits

STEP = Schedule(steps=1, learning_rate=1e-3, pictures=2, lessons_per_picture=2, texts=1, lessons_per_text=2)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [*((name, "float32") for name in FAMILIES), ("llava", "bfloat16"), ("qwen2_5_vl", "bfloat16")],
)
@pytest.mark.slow
def test_a_family_goes_through_a_study(
    family: str,
    dtype: Dtype,
    family_folders: dict[str, Path],
    benchmark: Benchmark,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Learned, unlearned, scored and kept in its precision; what is loaded again says bit for bit the same."""
    asked_little = few_questions(benchmark, 3)
    monkeypatch.setattr(StudyContext, "benchmark", asked_little)
    model = Hf(family_folders[family], dtype=dtype)
    context = StudyContext(tmp_path, Given(asked_little), model(tmp_path), loading=Loading.of(model))
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
