"""What data and machine do not support is changed, and said so, or refused before any work."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import optuna
import pytest
import torch
from optuna.samplers import RandomSampler

from study.benchmarks.synthetic import Synthetic
from study.contracts import Method
from study.core.console import console
from study.core.errors import Refused
from study.core.specs import parameters
from study.data.benchmark import Benchmark
from study.methods.npo import NPO
from study.methods.vkd import VKD
from study.presets import PRESETS, TAUGHT
from study.settings import Gate, Study
from study.stages import pipeline
from study.stages.preflight import validate_study
from study.stages.printed_plan import print_plan
from study.stages.supported import check_attributes, check_gpus, supported_defaults, unsupported
from tests.engine.test_optuna_search import search_in
from tests.helpers.hub_layout import as_on_the_hub

SMOKE = PRESETS["smoke"][1]


def strangerless(benchmark: Benchmark) -> Benchmark:
    return dataclasses.replace(benchmark, strangers=())


def test_a_teacher_that_needs_strangers_gives_way_to_another_person(benchmark: Benchmark) -> None:
    study = dataclasses.replace(SMOKE, methods=("vkd", "visual_anchor", "npo"))
    as_set, unchanged = supported_defaults(study, benchmark)
    assert (as_set, unchanged) == (study.method_defaults(), [])
    found, told = supported_defaults(study, strangerless(benchmark))
    teacher = parameters(as_set["vkd"])["teacher"]
    changed = teacher in ("stranger", "strangers_mean")
    assert parameters(found["vkd"]) == parameters(as_set["vkd"]) | ({"teacher": "other_person"} if changed else {})
    said = f"vkd: teacher=other_person, not {teacher}, as synthetic has no pictures of strangers"
    assert told == [said] * changed
    assert {name: found[name] for name in ("visual_anchor", "npo")} == {
        name: as_set[name] for name in ("visual_anchor", "npo")
    }


@pytest.mark.parametrize("asked", ["vkd:teacher=stranger", "visual_anchor:constraint=strangers"])
def test_what_was_set_to_need_strangers_is_refused(benchmark: Benchmark, asked: str) -> None:
    study = dataclasses.replace(SMOKE, methods=(asked,))
    supported_defaults(study, benchmark)
    with pytest.raises(Refused, match=f"{asked}: .* needs pictures of strangers and synthetic has none; add a folder"):
        supported_defaults(study, strangerless(benchmark))


@pytest.mark.parametrize("strangers", [True, False])
def test_teachers_that_need_strangers_are_proposed_where_there_are_any(
    benchmark: Benchmark, tmp_path: Path, strangers: bool
) -> None:
    defaults: dict[str, Method] = {"vkd": VKD(teacher="other_person"), "npo": NPO()}
    lacking = unsupported(defaults, benchmark if strangers else strangerless(benchmark))
    assert set(lacking) == (set() if strangers else {"vkd"})
    search = search_in(tmp_path, defaults, unsupported=lacking)
    drawn = optuna.create_study(sampler=RandomSampler(seed=0))
    built = [search.build_job("vkd", drawn.ask()).method for _ in range(30)]
    teachers = {method.teacher for method in built if isinstance(method, VKD)}
    assert teachers == {"other_person", "pruned", "base"} | ({"stranger", "strangers_mean"} if strangers else set())


def test_attributes_of_pictures_that_text_teaches_are_refused(benchmark: Benchmark) -> None:
    study = dataclasses.replace(SMOKE, forget_attributes=("residence",), gate=Gate())
    split = benchmark.split(10)
    with pytest.raises(Refused, match=r"--forget-attributes residence under the goal visual.* under --goal full"):
        check_attributes(split, study)
    pictured = tuple(lesson for lesson in split.lessons if lesson.picture)
    for fine, lessons in (
        (dataclasses.replace(study, goal="full"), split.lessons),
        (dataclasses.replace(study, gate=Gate(blind=1.0)), split.lessons),  # such a gate lets every reference pass
        (study, pictured),
        (dataclasses.replace(study, forget_attributes=()), split.lessons),
    ):
        check_attributes(dataclasses.replace(split, lessons=lessons), fine)


@pytest.mark.parametrize(
    ("asked", "there", "said"),
    [
        ({"gpus_per_trial": 1}, 0, "gpus_per_trial=1 but this machine has 0 GPUs"),
        ({"gpus_per_trial": 2}, 1, "gpus_per_trial=2 but this machine has 1 GPUs"),
        ({"gpus_per_trial": 1, "workers_per_model": 4}, 2, "workers_per_model=4 processes need a GPU each"),
        ({"gpus_per_trial": 1}, 1, ""),
        ({}, 0, ""),
    ],
)
def test_gpus_that_are_not_there_are_refused(asked: dict[str, float], there: int, said: str) -> None:
    study = dataclasses.replace(SMOKE, **asked)  # type: ignore[arg-type]
    if not said:
        check_gpus(study, lambda: there)
        return
    with pytest.raises(Refused, match=said):
        check_gpus(study, lambda: there)


@pytest.mark.slow
def test_a_dry_run_prints_the_plan_and_refuses_what_would_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the GPUs are those of a cluster, which nobody has asked."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    study = dataclasses.replace(SMOKE, study_dir=tmp_path / "study", gpus_per_trial=1, dry_run=True)
    with console.capture() as printed, pytest.raises(Refused, match="this machine has 0 GPUs; set --gpus-per-trial 0"):
        pipeline.run(study)
    assert "  search " in printed.get()
    assert pipeline.run(dataclasses.replace(study, address="auto")) == 0


def planned(study: Study, tmp_path: Path) -> str:
    with console.capture() as printed:
        plan = validate_study(study, tmp_path / "data")
        print_plan(plan)
    return " ".join(printed.get().split())


def test_mllmu_bench_as_on_the_hub_is_planned_with_what_it_lacks(tmp_path: Path) -> None:
    home = as_on_the_hub(tmp_path / "hub", Synthetic(people=20, celebrities=8, views=1, strangers=2, size=16))
    study = dataclasses.replace(SMOKE, study_dir=tmp_path / "study", benchmark=f"mllmu:{home}", methods=("vkd",))
    said = planned(study, tmp_path)
    assert (
        "taught: forget image, test image, retain image not taught: forget text, test text, retain text, real" in said
    )
    assert "forgetting is measured on forget image, test image" in said


def test_a_plan_says_how_many_steps_its_epochs_are(tmp_path: Path, benchmark: Benchmark) -> None:
    study = dataclasses.replace(SMOKE, study_dir=tmp_path / "study", learn=TAUGHT)
    pictured = sum(lesson.picture is not None for lesson in benchmark.split(10).lessons)
    assert f"; 5 epochs, of vanilla {5 * pictured // 4:,} steps" in planned(study, tmp_path)
    assert "epochs" not in planned(SMOKE, tmp_path)
