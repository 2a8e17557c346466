"""A study that begins with somebody's own fine-tuned model: what is taken, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from study.core.console import console
from study.core.errors import Refused
from study.core.files import read_json
from study.core.layout import StudyFolder
from study.core.records import TrialRecord, read_record
from study.core.rows import read_rows
from study.core.terms import HALVES
from study.experiment.adopt import adopt
from study.experiment.checkpoints import load_learned
from study.model.loading import Loading, load
from study.presets import PRESETS
from study.settings import Study
from study.stages import measurable
from study.stages.plan import Plan
from study.stages.preflight import validate_study
from study.stages.printed_plan import print_plan
from tests.helpers.in_process import run_here
from tests.helpers.small import same_bits
from tests.helpers.studies import Whole

ONE = dataclasses.replace(PRESETS["smoke"][1], forget_ratios=(10,), trials=2, startup_trials=1)


@pytest.fixture
def tuned(tiny_folder: Path, tmp_path: Path) -> Path:
    """A fine-tuned model, without the processor that its base model has."""
    return changed(tiny_folder, tmp_path / "tuned", 0.01)


def changed(base: Path, folder: Path, by: float) -> Path:
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: t + by for name, t in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    return folder


def planned(study: Study, base: Path, tmp_path: Path) -> Plan:
    return validate_study(dataclasses.replace(study, model=str(base), study_dir=tmp_path / "study"), tmp_path / "data")


@pytest.mark.slow
def test_what_is_brought_is_vanilla_and_the_base_model_stands_for_the_references(
    tiny_folder: Path, tuned: Path, tmp_path: Path
) -> None:
    plan = planned(dataclasses.replace(ONE, vanilla=str(tuned)), tiny_folder, tmp_path)
    vanilla, reference = (t.start for t in plan.baselines(10))
    assert (vanilla.kind, reference.kind) == ("vanilla", "reference")
    assert plan.given == {vanilla: tuned, reference: None}
    assert vanilla.base != reference.base
    assert (vanilla.parts, reference.parts) == ((), ())
    with console.capture() as printed:
        print_plan(plan)
    said = " ".join(printed.get().split())
    assert not measurable.untaught(plan, 10)  # whatever it was taught, it is asked for what the lessons say
    assert "no reference is given, so the forget gap is measured to the base model" in said
    elsewhere = shutil.copytree(tuned, tmp_path / "moved")
    assert planned(dataclasses.replace(ONE, vanilla=str(elsewhere)), tiny_folder, tmp_path).vanilla == vanilla


@pytest.mark.slow
def test_references_are_taken_in_the_order_of_their_seeds(tiny_folder: Path, tmp_path: Path) -> None:
    models = [changed(tiny_folder, tmp_path / f"{i}", 0.01 * i) for i in (1, 2, 3)]
    asked = dataclasses.replace(ONE, vanilla=str(models[0]), reference=tuple(map(str, models[1:])))
    plan = planned(asked, tiny_folder, tmp_path)
    assert [*plan.given.values()] == models
    assert [t.seed for t in plan.baselines(10)] == [0, 0, 1]
    assert plan.study.references == 2


def test_a_model_becomes_the_studys_own_with_the_processor_of_its_base(
    tiny_folder: Path, tuned: Path, tmp_path: Path
) -> None:
    plan = planned(ONE, tiny_folder, tmp_path)
    folder, learned = StudyFolder(tmp_path / "study"), dataclasses.replace(plan.vanilla, parts=())
    adopt(folder, learned, tuned, tiny_folder, Loading())
    kept = load_learned(folder.root, learned.key)
    base = load(tiny_folder).tensors()
    assert all(torch.equal(tensor, base[name] + 0.01) for name, tensor in kept.tensors().items())
    weights = folder.model_dir(learned.key) / "model.safetensors"
    assert os.path.samefile(weights, tuned / "model.safetensors")  # 14 GB at 7B: another name, no copy
    shutil.rmtree(tuned)
    assert same_bits(load_learned(folder.root, learned.key).tensors(), kept.tensors())
    assert str(tmp_path) not in folder.learned_record(learned.key).read_text(encoding="utf-8")


def test_what_cannot_be_the_studys_vanilla_is_refused(tiny_folder: Path, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="give the folder of one that was fine-tuned"):
        planned(dataclasses.replace(ONE, vanilla="tiny"), tiny_folder, tmp_path)
    (tuned / "config.json").rename(tuned / "adapter_config.json")
    with pytest.raises(Refused, match="an adapter without its model; merge it"):
        planned(dataclasses.replace(ONE, vanilla=str(tuned)), tiny_folder, tmp_path)


def test_a_model_of_another_shape_is_refused(
    tiny_folder: Path, family_folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=r"is not fine-tuned from .* tensors differ.* with --model"):
        planned(dataclasses.replace(ONE, vanilla=str(family_folders["llava_next"])), tiny_folder, tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reference": ("a",)}, "reference without vanilla"),
        ({"vanilla": "a", "reference": ("b",), "forget_ratios": (5, 10)}, "reference with forget_ratios=5 10"),
        ({"vanilla": "a", "metric_seeds": 1}, "metric_seeds=1 with vanilla=a"),
        ({"vanilla": "a", "reference": ("b", "b")}, "names something twice"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(ONE, **settings)  # type: ignore[arg-type]


def vanilla_of(folder: StudyFolder) -> dict[int, str]:
    """The trials of vanilla, by ratio."""
    records = (read_record(TrialRecord, path) for path in folder.trial_records())
    return {record.ratio: record.key for record in records if record.kind == "vanilla"}


@pytest.mark.slow
def test_a_study_of_a_brought_model_runs_to_its_report(whole: Whole, tmp_path: Path) -> None:
    """What a study taught has the same rows in another one that it is brought to."""
    before = StudyFolder(whole.folder)
    taught = next(p.parent for p in before.root.glob("learned/*/learned.json") if read_json(p)["kind"] == "vanilla")
    folder = tmp_path / "study"
    asked = ("--vanilla", str(taught / "model"), "--methods", "gradient_ascent", "--trials", "2", "--race", "1",
             "--confirm-seeds", "0", "--no-metric-check", "--attacks", "swap_back")  # fmt: skip
    printed = run_here(folder, *asked)
    assert "adopt: done in" in printed
    assert "learn: done in" not in printed
    assert "the reference is the base model, which was taught nothing" in printed
    assert "base model" in (folder / "report" / "tables" / "winners.tex").read_text(encoding="utf-8")
    assert "the base model stands for the references" in (folder / "report" / "report.html").read_text(encoding="utf-8")
    after = StudyFolder(folder)
    mine, its = (vanilla_of(place) for place in (after, before))
    assert mine.keys() == its.keys()
    for ratio, key in mine.items():
        for half in HALVES:
            pd.testing.assert_frame_equal(read_rows(after.rows(key, half)), read_rows(before.rows(its[ratio], half)))
    assert "done in" not in run_here(folder, *asked)
