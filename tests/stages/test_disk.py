"""What a study needs of its disk: counted from shapes, said in the plan, refused with a flag that helps."""

from __future__ import annotations

import re
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.base_models.hf import Hf
from study.base_models.tiny import Tiny
from study.core.errors import Refused
from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark
from study.methods.gradient_ascent import GradientAscent
from study.methods.prompting import Prompting
from study.model.vlm import VLM
from study.presets import PRESETS
from study.settings import Study
from study.stages import disk
from study.stages.disk import GIB, Sizes, check_disk, needed, sizes_of, space_of, stored, told
from study.training.schedule import Schedule
from tests.helpers.studies import Whole

SIZES = Sizes(
    4,
    {"vision": 3 * 10**8, "projector": 2 * 10**7, "llm": 67 * 10**8},
    {"vision": 0, "projector": 0, "llm": 25 * 10**5},
)
"""About LLaVA-1.5-7B in float32: 28 GB; adapters of rank 16 on its LLM are 160 MB."""
LORA = Schedule(lora_rank=16)
STUDY = replace(
    PRESETS["llava_1_5_7b"][1], methods=("gradient_ascent",), trials=24, forget_ratios=(5, 10, 15), confirm_seeds=2,
    metric_check=False, reference_seeds=1, attacks=(), attack_trials=0, race=1,
)  # fmt: skip
Usage = namedtuple("Usage", "total used free")


def whole_weights(study: Study) -> Study:
    return replace(study, defaults={"gradient_ascent": {"schedule": Schedule(), "trains": PARTS}})


# ---- what is counted -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fields", [{}, {"width": 32, "layers": 2}, {"size": 36, "patch": 6, "layers": 1}])
def test_a_generated_model_says_how_many_parameters_it_will_have(fields: dict[str, Any], tmp_path: Path) -> None:
    tiny = Tiny(steps=0, **fields)
    told, there = sizes_of(tiny), sizes_of(Hf(tiny(tmp_path)))
    assert told is not None
    assert there is not None
    assert told.parameters == there.parameters
    assert (told.generated, there.generated) == (True, False)


@pytest.mark.parametrize("part", PARTS)
def test_adapters_are_counted_by_the_linear_layers_of_a_part(part: Part, tiny_folder: Path, tiny: VLM) -> None:
    sizes = sizes_of(Hf(tiny_folder))
    assert sizes is not None
    rank = sum(layer.in_features + layer.out_features for layer in tiny.linear((part,)).values())
    assert sizes.adapted[part] == rank > 0


def test_a_trial_is_stored_as_its_parts_or_as_factors_or_as_nothing() -> None:
    assert stored(GradientAscent(trains=("vision",)), SIZES) == 4 * 3 * 10**8
    assert stored(GradientAscent(trains=("llm",), schedule=LORA), SIZES) == 4 * 16 * 25 * 10**5
    assert stored(GradientAscent(trains=("llm",), schedule=LORA), replace(SIZES, itemsize=2)) == 4 * 16 * 25 * 10**5
    assert stored(Prompting(), SIZES) == 0


def test_adapters_of_a_study_at_7b_take_a_hundredth_of_whole_weights(benchmark: Benchmark) -> None:
    factors = needed(STUDY, benchmark, SIZES).trials
    whole = needed(whole_weights(STUDY), benchmark, SIZES).trials
    assert factors < 6 * GIB
    assert whole == (24 + 3 * 2) * SIZES.model
    assert factors < whole / 100


def test_learned_models_are_vanilla_the_references_and_the_pool(benchmark: Benchmark) -> None:
    assert needed(STUDY, benchmark, SIZES).models == 4 * SIZES.model
    assert needed(replace(STUDY, reference_seeds=3), benchmark, SIZES).models == 10 * SIZES.model
    pooled = replace(STUDY, metric_check=True, metric_seeds=2)
    assert needed(pooled, benchmark, SIZES).models == (4 + 2 + 3 * 2) * SIZES.model
    assert needed(STUDY, benchmark, replace(SIZES, generated=True)).models == 5 * SIZES.model


def test_brought_models_are_kept_once_for_all_ratios(benchmark: Benchmark) -> None:
    """Without references the base model stands for those of every ratio."""
    assert needed(replace(STUDY, vanilla="/models/v"), benchmark, SIZES).models == 2 * SIZES.model
    asked = replace(STUDY, vanilla="/models/v", reference=("/models/r", "/models/s"), forget_ratios=(5,))
    assert needed(asked, benchmark, SIZES).models == 3 * SIZES.model


def test_a_race_keeps_the_trials_that_there_are(benchmark: Benchmark) -> None:
    """Four trials at three ratios are two at the first and one at each other, with two further seeds each."""
    raced = needed(whole_weights(replace(STUDY, trials=4, race=3)), benchmark, SIZES).trials
    assert raced == (4 + 2 * (2 + 1 + 1)) * SIZES.model


def test_masks_are_kept_once_a_ratio_for_every_weight_behind_them(benchmark: Benchmark) -> None:
    masked = replace(STUDY, methods=("mmunlearner",), defaults={"mmunlearner": {"trains": ("vision", "projector")}})
    assert needed(masked, benchmark, SIZES).masks == 3 * 4 * (3 * 10**8 + 2 * 10**7)
    assert needed(STUDY, benchmark, SIZES).masks == 0


def test_keeping_winners_alone_bounds_the_trials(benchmark: Benchmark) -> None:
    many = whole_weights(replace(STUDY, trials=300, keep="winners"))
    searched, confirmed = 3 * 2 + STUDY.lookahead, 3 * 2  # of three ratios the best and the default; two further seeds
    assert needed(many, benchmark, SIZES).trials == (searched + confirmed) * SIZES.model
    robust = replace(many, robustness="relearning")
    assert needed(robust, benchmark, SIZES).trials == (300 + 3 * 2) * SIZES.model  # a whole front may be as large


@pytest.mark.slow
def test_a_finished_study_needs_no_more_than_the_plan_said(whole: Whole, benchmark: Benchmark) -> None:
    study = replace(PRESETS["smoke"][1], study_dir=whole.folder)
    sizes = sizes_of(Tiny(steps=0, width=32, layers=2))
    assert sizes is not None
    need = needed(study.resolved(), benchmark, sizes)
    models = sum(path.stat().st_size for path in whole.folder.glob("learned/*/model/*.safetensors"))
    trials = sum(path.stat().st_size for path in whole.folder.glob("trials/*/delta.safetensors"))
    rows = sum(path.stat().st_size for path in whole.folder.glob("trials/**/*.parquet"))
    assert 0.5 * need.models < models <= need.models
    assert 0.3 * need.trials < trials <= 1.1 * need.trials  # files have headers
    assert rows <= need.rows + need.trials


# ---- what is said and refused --------------------------------------------------------------------------------------
def at_7b(monkeypatch: pytest.MonkeyPatch, free: int, sizes: Sizes | None = SIZES) -> None:
    """A model of 7B and a disk with so many GiB left."""
    monkeypatch.setattr(disk, "sizes_of", lambda _: sizes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free * GIB))


def checked(study: Study, model: Hf, benchmark: Benchmark) -> None:
    check_disk(study, model, benchmark, space_of(study, model, benchmark))


def test_the_plan_says_what_is_needed_there_and_free(
    monkeypatch: pytest.MonkeyPatch, benchmark: Benchmark, tmp_path: Path
) -> None:
    at_7b(monkeypatch, 500)
    study = replace(STUDY, study_dir=tmp_path)
    line = told(space_of(study, Hf(Path("m")), benchmark))
    assert re.fullmatch(r"109 GiB: models 105, trials 4\.5, rows 0\.0\d+; 500 are free", line), line
    kept = tmp_path / "learned" / "key" / "model.safetensors"
    for file in (kept, tmp_path / "ray" / "log", tmp_path / "report" / "x.png"):
        file.parent.mkdir(parents=True)
        with file.open("wb") as sparse:
            sparse.truncate(26 * GIB)
    assert "; 26 are there; 500 are free" in told(space_of(study, Hf(Path("m")), benchmark))
    at_7b(monkeypatch, 500, None)
    assert told(space_of(study, Hf(Path("m")), benchmark)).startswith("unknown: the base model is generated")
    checked(study, Hf(Path("m")), benchmark)


@pytest.mark.parametrize(
    ("free", "dtype", "said"),
    [
        (600, "float32", r"needs 889 GiB, and its disk has room for 600 GiB; --keep winners needs 471 GiB"),
        (460, "float32", r"460 GiB; dtype=bfloat16 in --model needs 445 GiB"),
        (300, "float32", r"300 GiB; --keep winners with dtype=bfloat16 in --model needs 235 GiB"),
        (400, "bfloat16", r"needs 445 GiB, and its disk has room for 400 GiB; --keep winners needs 235 GiB"),
        (200, "bfloat16", r"200 GiB; --keep winners --trials 5 needs 196 GiB"),
        (50, "float32", r"50 GiB; choose a --study-dir on a larger disk"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(
    free: int, dtype: Any, said: str, monkeypatch: pytest.MonkeyPatch, benchmark: Benchmark, tmp_path: Path
) -> None:
    sizes = SIZES if dtype == "float32" else replace(SIZES, itemsize=2)
    at_7b(monkeypatch, free, sizes)
    study = whole_weights(replace(STUDY, study_dir=tmp_path))
    with pytest.raises(Refused, match=said):
        checked(study, Hf(Path("m"), dtype=dtype), benchmark)


def test_a_study_that_began_is_only_told_what_it_may_still_change(
    monkeypatch: pytest.MonkeyPatch, benchmark: Benchmark, tmp_path: Path
) -> None:
    (tmp_path / "study.json").write_text("{}")
    at_7b(monkeypatch, 300)
    with pytest.raises(Refused, match="; choose a --study-dir on a larger disk"):
        checked(whole_weights(replace(STUDY, study_dir=tmp_path)), Hf(Path("m")), benchmark)
