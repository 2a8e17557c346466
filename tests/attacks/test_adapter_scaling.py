"""Taking an adapter off: a straight line to the model it was made for, and only where there is an adapter."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from study.attacks.adapter_scaling import AdapterScaling
from study.benchmarks.synthetic import Synthetic
from study.contracts import Method, Request
from study.core.errors import Refused
from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark
from study.experiment import checkpoints
from study.experiment.context import StudyContext
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.methods.none import NoMethod
from study.methods.npo import NPO
from study.methods.prompting import Prompting
from study.model.vlm import VLM
from study.training.schedule import Schedule
from tests.helpers.small import QUICK, changed, fresh, request_on, same_bits, snapshot

ADAPTER = replace(QUICK, learning_rate=1e-2, lora_rank=2, lora_dropout=0.0)


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    """The method began with the tiny model as it lies in its folder, and trained an adapter."""
    return replace(request_on(benchmark, tmp_path / "cache", tiny_folder, ratio=15), adapter=True)


@pytest.fixture
def adapted(tiny_folder: Path, request_: Request) -> VLM:
    """The model after some ascent by adapters."""
    return GradientAscent(schedule=ADAPTER)(fresh(tiny_folder), request_)


def test_every_scale_lies_on_the_straight_line(tiny: VLM, adapted: VLM, request_: Request) -> None:
    """Point by point in float64; at 0 the start and at 1 the model as found to the bit; beyond them further on."""
    start, found = snapshot(tiny), snapshot(adapted)
    moved = changed(start, found)
    assert {tiny.part_of(name) for name in moved} == set(PARTS)
    scales = (1.0, 0.5, 0.25, -0.5, 1.5, 0.0)
    stages = AdapterScaling(scales)(adapted, [], request_)
    for step, scale in enumerate(scales, 1):
        stage = next(stages)
        now = snapshot(stage.vlm)
        assert stage.step == step
        assert all(torch.equal(now[name], start[name]) for name in start.keys() - moved)
        for name in moved:
            wanted = start[name].double() + scale * (found[name].double() - start[name].double())
            assert (now[name] - wanted).abs().max() < 1e-6
        assert scale not in (0, 1) or same_bits(now, start if scale == 0 else found)
    assert list(stages) == []


def test_elsewhere_the_adapter_stays_on(tiny: VLM, adapted: VLM, request_: Request) -> None:
    start, found = snapshot(tiny), snapshot(adapted)
    *_, last = AdapterScaling((0.0,), ("llm",))(adapted, [], request_)
    after = snapshot(last.vlm)
    assert {tiny.part_of(name) for name in changed(found, after)} == {"llm"}
    assert {tiny.part_of(name) for name in changed(start, after)} == {"vision", "projector"}


@pytest.mark.parametrize("parts", [PARTS, ("projector",)])
def test_whole_weights_are_no_adapter(adapted: VLM, request_: Request, parts: tuple[Part, ...]) -> None:
    """Nor in parts that the method left alone: nobody holds an adapter."""
    found = snapshot(adapted)
    stages = AdapterScaling(parts=parts)(adapted, [], replace(request_, adapter=False))
    with pytest.raises(Refused, match="trained whole weights, there is no adapter to take off: leave adapter_sca"):
        next(stages)
    assert same_bits(found, snapshot(adapted))


def test_a_model_that_nothing_changed_is_shown_as_it_is(tiny: VLM, request_: Request) -> None:
    """Vanilla and the reference, which every attack meets too, and a method of words alone, which loses them."""
    before = snapshot(tiny)
    stages = list(AdapterScaling()(tiny.with_instruction("Say nothing."), [], replace(request_, adapter=False)))
    assert [stage.step for stage in stages] == [1, 2]
    assert [stage.vlm.instruction for stage in stages] == ["", ""]
    assert same_bits(before, snapshot(stages[-1].vlm))


@pytest.mark.parametrize("scales", [(), (math.nan,), (0.5, math.inf)])
def test_a_wrong_scale_is_named(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scales="):
        AdapterScaling(scales)


def test_no_part_is_named() -> None:
    with pytest.raises(ValueError, match="parts="):
        AdapterScaling(parts=())


# ---- what a trial says of itself -------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "adapter"),
    [(NPO(schedule=ADAPTER), True), (NPO(schedule=QUICK), False), (Prompting(), False), (NoMethod(), False)],
)
def test_a_request_knows_its_start_and_whether_there_is_an_adapter(
    method: Method, adapter: bool, tiny: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learned model of the trial, read from disk every time: the one in memory is being attacked."""
    start = Learned("reference", "base", "benchmark", "visual", 10, Schedule(), ("llm",), 0)
    asked: list[tuple[Path, str, str]] = []

    def load_learned(*place: Any, checked: bool = True, as_taught: bool = False) -> VLM:
        if checked:
            asked.append(place)
        return tiny

    monkeypatch.setattr(checkpoints, "load_learned", load_learned)
    context = StudyContext(tmp_path, Synthetic(people=20, celebrities=8, views=1, strangers=0), tmp_path, "cpu")
    request = context.request(Trial(start, method, "visual", 10, 0), "another key")
    assert request.adapter is adapter
    assert asked == []
    assert request.start().keys() == tiny.tensors().keys()
    assert request.start() is request.start()
    assert asked == [(tmp_path, start.key, "cpu")]
    checkpoints.evict()
