"""A study in bfloat16 beside one in float32: the same winner, nearly the same numbers, and trials that load as left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from study.benchmarks.synthetic import Synthetic
from study.contracts import Method
from study.core.files import read_json, write_json
from study.core.rows import read_rows
from study.core.terms import Dtype
from study.experiment import checkpoints, trial
from study.experiment.checkpoints import borrowed, unlearned_model
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.methods.none import NoMethod
from study.methods.npo import NPO
from study.methods.vkd import VKD
from study.metrics.objectives import distance_to_ideal, gap_to
from study.model.delta import delta, names_in
from study.model.loading import Loading
from study.training.schedule import Schedule
from tests.helpers.small import same_bits

RATIO = 20
TAUGHT = Schedule(steps=60, learning_rate=3e-3, pictures=6, lessons_per_picture=6, texts=2, beta2=0.98)
SHORT = Schedule(steps=6, learning_rate=1e-3, pictures=3, lessons_per_picture=6, texts=1, beta2=0.98)
VANILLA = Learned("vanilla", "base", "benchmark", None, None, TAUGHT, ("projector", "llm"), 0)
REFERENCES = [replace(VANILLA, kind="reference", goal="visual", ratio=RATIO, seed=seed) for seed in (0, 1)]
METHODS: dict[str, Method] = {
    "vkd": VKD(variant="features", schedule=SHORT),
    "adapters": NPO(schedule=replace(SHORT, lora_rank=4, learning_rate=1e-2)),
    "ascent": GradientAscent(schedule=replace(SHORT, learning_rate=3e-3)),  # which collapses the model
}
TOLERANCE = 0.04
"""Of objectives in [0, 1]: twice what a change of the last bit does to them, since both sides may be off by as much."""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudyContext:
    """A study that has learned its models, in float32."""
    source = Synthetic(people=20, celebrities=8, views=2, strangers=8)
    context = StudyContext(tmp_path_factory.mktemp("study"), source, tiny_folder)
    for model in (VANILLA, *REFERENCES):
        learn(context, model)
    return context


@pytest.fixture
def in_both(learned: StudyContext, tmp_path: Path) -> Iterator[dict[Dtype, StudyContext]]:
    """The same models loaded in float32 and in bfloat16: those that a user brings, say."""
    found: dict[Dtype, StudyContext] = {}
    for dtype in ("float32", "bfloat16"):
        root = shutil.copytree(learned.root, tmp_path / dtype)
        found[dtype] = replace(learned, root=root, loading=Loading(dtype))
        for model in (VANILLA, *REFERENCES):
            path = found[dtype].folder.learned_record(model.key)
            write_json(path, {**read_json(path), "dtype": dtype})
    yield found
    checkpoints.evict()


def objectives(context: StudyContext) -> tuple[dict[str, dict[str, float]], float]:
    """Those of every method, and the gap of one reference to the other."""
    baselines = [Trial(start, NoMethod(), "visual", RATIO, 0) for start in (VANILLA, *REFERENCES)]
    asked = {name: Trial(VANILLA, method, "visual", RATIO, 0) for name, method in METHODS.items()}
    for one in (*baselines, *asked.values()):
        assert trial.run(context, one, REFERENCES[0].key).state == "complete"
    first, second = (read_rows(context.folder.rows(one.key, "select")) for one in baselines[1:])
    found = {name: trial.judged(context, one, baselines) for name, one in asked.items()}
    return found, gap_to([second], first, "visual")


def nearest(found: Mapping[str, Mapping[str, float]]) -> str:
    """The method that is nearest to the ideal point."""
    return min(found, key=lambda name: distance_to_ideal(**found[name]))


@pytest.mark.slow
def test_the_same_method_wins_and_gaps_differ_by_less_than_references(in_both: dict[Dtype, StudyContext]) -> None:
    (plain, floor), (half, _) = (objectives(in_both[dtype]) for dtype in ("float32", "bfloat16"))
    assert nearest(half) == nearest(plain)
    assert plain != half  # something was computed otherwise
    assert len({round(values["utility"], 2) for values in plain.values()}) > 1  # methods can be told apart
    for name, values in plain.items():
        assert half[name]["forget_gap"] == pytest.approx(values["forget_gap"], abs=max(floor, TOLERANCE)), name
        assert half[name]["utility"] == pytest.approx(values["utility"], abs=TOLERANCE), name


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_trial_in_bfloat16_loads_as_it_was_scored(name: str, in_both: dict[Dtype, StudyContext]) -> None:
    """What was frozen has the bits it had; what changed is stored in bfloat16, adapters in float32."""
    context, asked = in_both["bfloat16"], Trial(VANILLA, METHODS[name], "visual", RATIO, 0)
    request = context.request(asked, REFERENCES[0].key)
    with borrowed(context.root, VANILLA.key, "cpu") as (vlm, before):
        model = asked.method(vlm, request)
        left, kept = {key: tensor.clone() for key, tensor in model.tensors().items()}, delta(model, before)
    assert {tensor.dtype for tensor in left.values()} == {torch.bfloat16}
    parts = {vlm.part_of(key) for key in names_in(kept)}
    assert parts == set(asked.method.changes)
    factors = {key: tensor for key, tensor in kept.items() if ".lora_" in key}
    assert bool(factors) == (name == "adapters")
    assert {tensor.dtype for key, tensor in kept.items() if key not in factors} <= {torch.bfloat16}
    trial.run(context, asked, REFERENCES[0].key)
    with borrowed(context.root, VANILLA.key, "cpu") as (vlm, _):
        assert same_bits(left, unlearned_model(context.folder, asked.key, vlm)[0].tensors())
    with borrowed(context.root, VANILLA.key, "cpu") as (vlm, before):
        assert same_bits(dict(before), vlm.tensors())
