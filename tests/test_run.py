"""The command line: what it overrides, what it explains, what it refuses before any work."""

from __future__ import annotations

import dataclasses
import fcntl
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from study import run
from study.attacks.relearning import Relearning
from study.base_models.tiny import Tiny
from study.benchmarks.synthetic import Synthetic
from study.contracts import BaseModel
from study.core.errors import Refused
from study.core.files import read_json, write_json
from study.core.hashing import Json
from study.core.plugins import known
from study.core.specs import name_in, plugin
from study.data.benchmark import Benchmark
from study.presets import PRESETS
from study.settings import REFERENCES, Study
from study.stages import pipeline, plan
from study.stages.manifest import GROWING, RUNTIME, settle
from study.stages.plan import identity_of
from study.stages.preflight import _check_questions, validate_study
from tests import ROOT
from tests.benchmarks.test_mllmu import edit
from tests.helpers.planted import plant
from tests.helpers.studies import searching

SMOKE = PRESETS["smoke"][1]


def test_settings_are_overridden_by_name() -> None:
    asked = "tiny --methods vkd npo --trials 4 --forget-ratios 10 15 --seed 3 --study-dir runs/mine --learn.steps 7"
    study = run.parse(asked.split())
    assert (study.methods, study.trials, study.forget_ratios, study.seed) == (("vkd", "npo"), 4, (10, 15), 3)
    assert study.study_dir == Path("runs/mine")
    assert study.learn == dataclasses.replace(PRESETS["tiny"][1].learn, steps=7)
    assert study.defaults == PRESETS["tiny"][1].defaults


def test_without_a_preset_it_is_tiny() -> None:
    assert run.parse([]) == run.parse(["tiny"]) == PRESETS["tiny"][1]


def test_all_methods_are_those_that_can_be_searched() -> None:
    assert set(run.parse(["--methods", "all"]).resolved().methods) == set(known("methods")) - set(REFERENCES)


def test_the_audit_gives_an_attacker_ever_more_of_the_people_and_all() -> None:
    asked = [a for a in PRESETS["audit"][1].attackers() if isinstance(a, Relearning) and a.facts == 1.0]
    shares = [attack.people for attack in asked if attack.data == "forget"]
    assert sorted(shares) == [0.05, 0.25, 0.5, 1.0]
    alike = {dataclasses.replace(a, people=1.0) for a in asked if a.data == "forget"}
    assert len(alike) == 1, "they differ in nothing else"


def test_every_preset_is_whole() -> None:
    for name, (about, study) in PRESETS.items():
        assert about
        if study.model:
            assert study.resolved() == study, name
        assert {name_in(text) for text in study.defaults} <= set(known("methods")), name
        assert set(study.attack_grid) <= set(known("attacks")), name
        assert study.preset_methods().keys() == study.defaults.keys()  # each has the fields that it is given
        assert study.preset_attacks().keys() == study.attack_grid.keys()


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("/models/My-VLM-7B", "runs/My-VLM-7B"),
        ("hf:/models/My-VLM-7B/", "runs/My-VLM-7B"),
        ("hf:path=/models/My-VLM-7B,dtype=bfloat16", "runs/My-VLM-7B"),
        (f"owner/My-VLM-7B@{'0' * 40}", "runs/My-VLM-7B"),
        (f"hf:hub=owner/My-VLM-7B,revision={'0' * 40}", "runs/My-VLM-7B"),
        ("tiny:width=32", "runs/tiny"),
    ],
)
def test_a_folder_may_be_named_after_the_model(model: str, folder: str) -> None:
    assert run.parse(["any_vlm", "--model", model]).resolved().study_dir == Path(folder)


def test_a_preset_without_a_model_asks_for_one() -> None:
    with pytest.raises(ValueError, match="name a base model, as in --model"):
        run.parse(["any_vlm"]).resolved()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tinny"], "did you mean 'tiny'?"),
        (["--methods", "vdk"], "did you mean 'vkd'?"),
        (["--methods", "none"], "unknown name 'none' among the methods"),
        (["--attacks", "relearn"], "did you mean 'relearning'?"),
        (["--model", "tyni:seed=1"], "did you mean 'tiny'?"),
        (["--model", "hf"], "write hf:PATH"),
        (["smoke", "--model", "hf:/nowhere"], "/nowhere: no such folder"),
        (["smoke", "--base-model", "/nowhere"], "/nowhere: no such folder"),
        (["--base-model", "llava-hf/llava-1.5-7b-hf"], "write llava-hf/llava-1.5-7b-hf@COMMIT"),
        (["--model", "hf:path=/x,dtype=float16"], "dtype='float16': use float32 or bfloat16"),
        (["--model", "hf:path=/x,attention=flash"], "attention='flash': use sdpa, or eager"),
        (["--model", "tiny:sed=1"], "did you mean 'seed'?"),
        (["--model", "tiny:seed=one"], "seed=one is not a int"),
        (["--model", "tiny:size=50"], "size=50 is not a multiple of patch=12"),
        (["--benchmark", "mllmu:/nowhere"], "/nowhere"),
        (["--benchmark", "synthetic:people=3"], "people=3"),
        (["smoke", "--forget-ratios", "7"], "forget ratio 7: benchmark synthetic has 5, 10, 15"),
    ],
)
def test_a_wrong_value_is_named_with_the_remedy(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((Refused, ValueError), match=re.escape(said)):
        pipeline.run(dataclasses.replace(run.parse(arguments), dry_run=True).resolved())


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("hf:/no-model", "/no-model: no such folder"),
        (f"hf:hub=owner/model,revision={'0' * 40}", "/no-data"),
    ],
    ids=["on this disk, before the benchmark", "on the hub, after it"],
)
def test_a_model_is_looked_at_when_that_is_cheapest(model: str, said: str, tmp_path: Path) -> None:
    """Reading a benchmark takes longer than looking at a folder, and a download longer than that."""
    study = dataclasses.replace(SMOKE, model=model, benchmark="mllmu:/no-data", study_dir=tmp_path)
    with pytest.raises((Refused, ValueError), match=re.escape(said)):
        validate_study(study, tmp_path / "data")


@pytest.mark.parametrize(
    "wrong",
    [
        {"trials": 0},
        {"trials": 1},
        {"workers": 0},
        {"confirm_seeds": -1},
        {"methods": ()},
        {"forget_ratios": (10, 10)},
        {"learn_parts": ()},
        {"seed": -1},
        {"seed": 2**64},
        {"trials": 10**20},
    ],
)
def test_a_study_that_makes_no_sense_cannot_be_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", "[ _]").rstrip("s")):
        dataclasses.replace(SMOKE, **wrong)  # type: ignore[arg-type]


def test_settings_of_a_plugin_are_typed() -> None:
    assert plugin("base_models", "tiny:steps=0,width=32") == Tiny(steps=0, width=32)
    assert plugin("benchmarks", "synthetic") == Synthetic()


@pytest.mark.slow
def test_a_dry_run_prints_the_plan_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    command = [sys.executable, "study/run.py", "smoke", "--dry-run", "--study-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert not done.stderr
    for stage in ("learn", "search", "confirm", "attack", "report", "disk", "budget"):
        assert f"  {stage} " in done.stdout
    assert "% of 20 people " in done.stdout  # the 8 celebrities are real people, whom no ratio counts
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="is a file; choose another --study-dir"):
        validate_study(dataclasses.replace(SMOKE, study_dir=tmp_path / "file" / "study"), tmp_path)


@pytest.mark.parametrize("name", ["ray", "failures"])
def test_a_folder_of_somebody_else_is_not_emptied(name: str, tmp_path: Path, generated: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(
        Refused, match=f"it holds no study, and a run would empty its {name}; choose another --study-dir"
    ):
        validate_study(dataclasses.replace(SMOKE, study_dir=tmp_path), generated)
    (tmp_path / ".lock").touch()  # of a run
    validate_study(dataclasses.replace(SMOKE, study_dir=tmp_path), generated)


@pytest.mark.slow
def test_a_folder_in_use_is_refused_with_its_owner(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        lock.write("process 7 on elsewhere")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="in use by process 7 on elsewhere"):
            pipeline.run(dataclasses.replace(SMOKE, study_dir=tmp_path))


@pytest.mark.slow
def test_until_a_search_begins_settings_may_change_and_what_they_taught_goes(tmp_path: Path, generated: Path) -> None:
    """A run that was refused, or whose models did not pass the gate, is continued in the same folder."""
    study = dataclasses.replace(SMOKE, study_dir=tmp_path)
    first = validate_study(study, generated)
    assert settle(first) == []
    folder = first.folder
    kept = {t.start.key for ratio in study.forget_ratios for t in first.baselines(ratio)}
    for t in first.baselines(10):
        write_json(folder.learned_record(t.start.key), {})
        write_json(folder.record(t.key), {})
    assert settle(validate_study(study, generated)) == []
    longer = validate_study(dataclasses.replace(study, learn=dataclasses.replace(study.learn, steps=9)), tmp_path)
    gone = settle(longer)
    assert sorted(gone) == sorted(t.start.key for t in first.baselines(10))
    assert set(gone) <= kept
    assert not [*folder.learned_folders(), *folder.trial_folders()]
    assert read_json(folder.settings)["settings"]["learn"]["steps"] == 9
    near = folder.near.read_bytes()
    settle(validate_study(dataclasses.replace(longer.study, forget_ratios=(15,)), tmp_path))
    assert folder.near.read_bytes() != near


def test_changed_settings_are_refused_field_by_field(tmp_path: Path, generated: Path) -> None:
    study = searching(dataclasses.replace(SMOKE, study_dir=tmp_path), generated).study
    more = dataclasses.replace(study, trials=9, confirm_seeds=3, methods=("vkd", "gradient_ascent", "npo"), workers=5)
    validate_study(more, generated)  # adds work or changes no result
    less = dataclasses.replace(study, trials=2, methods=("vkd",))
    with pytest.raises(Refused, match="a study can only grow") as refused:
        validate_study(less, generated)
    assert "trials: 4 on disk, 2 requested" in str(refused.value)
    assert "methods: vkd gradient_ascent on disk, vkd requested" in str(refused.value)
    other = dataclasses.replace(study, goal="full", learn=dataclasses.replace(study.learn, steps=5), defaults={})
    with pytest.raises(Refused) as refused:
        validate_study(other, generated)
    said = str(refused.value)
    assert "goal: visual on disk, full requested" in said
    assert "learn.steps: 4 on disk, 5 requested" in said
    assert "choose another --study-dir" in said


@pytest.mark.slow
def test_every_setting_is_compared_unless_it_is_known_to_be_free(
    tmp_path: Path, tiny_folder: Path, generated: Path
) -> None:
    study = searching(dataclasses.replace(SMOKE, study_dir=tmp_path), generated).study
    changes = {
        "model": "tiny:steps=0,width=32,layers=2,seed=1",
        "vanilla": str(tiny_folder),
        "benchmark": "synthetic:people=20,celebrities=8,views=2,strangers=8,seed=1",
        "goal": "full",
        "forget_ratios": (10,),
        "forget_attributes": ("residence",),
        "attack_keeps": 0.9,
        "robustness": "relearning",
        "seed": 1,
        "warm_start": plant(tmp_path / "earlier"),
        "lookahead": 3,
        "sampler": "tpe",
        "startup_trials": 2,
        "collapse_floor": 0.3,
        "learn": dataclasses.replace(study.learn, clip=2.0),
        "learn_parts": ("llm",),
        "reference_seeds": 3,
        "measure": "known",
        "scored_error": 0.05,
    }
    names = {field.name for field in dataclasses.fields(Study)}
    assert set(changes) | set(RUNTIME) | set(GROWING) | {"reference"} == names  # which goes with a vanilla
    for name, value in changes.items():
        changed: Any = {name: value}
        with pytest.raises(Refused, match=f"(?s)other settings.* {name}"):
            validate_study(dataclasses.replace(study, **changed), generated)


@pytest.mark.slow
def test_a_study_of_another_version_is_refused_by_its_revision(tmp_path: Path, generated: Path) -> None:
    """Settings that one of the versions does not have cannot be used as they are on disk."""
    study = dataclasses.replace(PRESETS["smoke"][1], study_dir=tmp_path / "study")
    path = searching(study, generated).folder.settings
    stored = read_json(path)
    stored["git"] = "abc123"
    del stored["settings"]["collapse_floor"]
    write_json(path, stored)
    with pytest.raises(Refused, match=r"(?s)collapse_floor: None on disk.*revision abc123; here .* continue it with"):
        validate_study(study, generated)
    with pytest.raises(Refused, match=r"seed: 0 on disk, 1 requested(?s:.*)use the settings on disk"):
        validate_study(dataclasses.replace(study, seed=1), generated)


def test_a_benchmark_without_a_question_to_report_by_is_refused(tmp_path: Path, benchmark: Benchmark) -> None:
    split = benchmark.split(15)
    kept = tuple(q for q in split.questions if (q.role, q.modality, q.half) != ("real", "text", "report"))
    with pytest.raises(Refused, match="no text classification question about real people falls into the test half"):
        _check_questions(dataclasses.replace(split, questions=kept))


def test_a_real_dataset_folder_is_planned_from_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Synthetic(people=20, celebrities=8, views=1, strangers=2, size=16)(tmp_path)
    (data,) = tmp_path.iterdir()
    monkeypatch.chdir(tmp_path)
    study = dataclasses.replace(SMOKE, benchmark=f"mllmu:{data.name}", study_dir=tmp_path / "new" / "study")
    preflight = validate_study(study, tmp_path / "unused")
    assert preflight.source == plugin("benchmarks", f"mllmu:{data}")  # absolute: workers start elsewhere


def test_a_base_model_is_known_by_its_content(tmp_path: Path, tiny_folder: Path) -> None:
    def identity(folder: Path) -> object:
        return identity_of(plugin("base_models", str(folder)))

    one, two = (shutil.copytree(tiny_folder, tmp_path / name) for name in ("one", "two"))
    assert identity(one) == identity(two) == identity(tiny_folder)
    weights = two / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    assert identity(one) != identity(two)


def test_the_files_of_a_base_model_are_read_once(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, generated: Path
) -> None:
    looked: list[object] = []

    def identity(model: BaseModel) -> Json:
        looked.append(model)
        return identity_of(model)

    monkeypatch.setattr(plan, "identity_of", identity)
    study = dataclasses.replace(SMOKE, study_dir=tmp_path, model=str(tiny_folder), metric_seeds=2)
    planned = validate_study(study, generated)
    for ratio in study.forget_ratios:
        assert [t.start for t in planned.baselines(ratio)] == [planned.vanilla, *planned.references(ratio)]
        further = dataclasses.replace(planned, study=dataclasses.replace(study, seed=study.seed + 1))
        assert planned.pool(ratio)[2:4] == further.baselines(ratio)[:2]
    settle(planned)
    assert looked.count(planned.model) == 1 + len(study.forget_ratios)  # each of `further` is a plan of its own


def test_a_damaged_settings_file_is_named(tmp_path: Path, generated: Path) -> None:
    study = dataclasses.replace(SMOKE, study_dir=tmp_path)
    write_json(tmp_path / "study.json", {})
    (tmp_path / "study.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"study\.json is damaged"):
        validate_study(study, generated)


def test_a_picture_that_does_not_decode_is_named_before_any_training(tmp_path: Path, generated: Path) -> None:
    Synthetic(people=20, celebrities=8, attributes=2, views=1, strangers=2, size=16)(tmp_path)
    (data,) = tmp_path.iterdir()

    def truncate(rows: list[Any]) -> None:
        rows[1]["image"]["bytes"] = rows[1]["image"]["bytes"][:200]

    edit(data, "forget_15", truncate)
    study = dataclasses.replace(SMOKE, benchmark=f"mllmu:{data}", study_dir=tmp_path / "study")
    with pytest.raises(ValueError, match=r"forget_15/train-00000-of-00001\.parquet, row 1, .*the image is damaged"):
        validate_study(study, generated)


def test_a_method_without_lessons_is_refused_before_any_work(tmp_path: Path, generated: Path) -> None:
    """Under the goal visual no text is to be forgotten; a setting outside of its search space is refused too."""
    for methods, said in (
        (("npo:modality=text",), "npo:modality=text: modality='text': under the goal 'visual'"),
        (("npo:beta=100",), "npo:beta=100: outside search_spaces/npo.py"),
        (("npo:learning_rate=0",), "npo:learning_rate=0: search_spaces/npo.py asks for what cannot be searched around"),
    ):
        study = dataclasses.replace(SMOKE, study_dir=tmp_path, methods=methods).resolved()
        with pytest.raises(Refused) as refused:
            validate_study(study, generated)
        assert said in str(refused.value)
    validate_study(
        dataclasses.replace(SMOKE, study_dir=tmp_path, methods=("npo:modality=text",), goal="full"), tmp_path
    )
