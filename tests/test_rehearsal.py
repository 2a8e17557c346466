"""A first user's study on data and a model that are like the released ones in all but their size, from plan to report.

Steps, batches and rates are set for a model of 0.1 M parameters, and as little is asked for as shows every stage. All
else is what the preset says.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from study.benchmarks.mllmu import Mllmu
from study.benchmarks.synthetic import Synthetic
from study.core.files import read_json
from study.core.layout import StudyFolder
from study.core.records import LearnedRecord, TrialRecord, read_record
from study.presets import PRESETS
from tests.helpers.hub_layout import as_on_the_hub, coloured
from tests.helpers.in_process import run_here
from tests.helpers.released_llava import SIDE, released_llava

pytestmark = pytest.mark.slow
SCALED = (
    *("--gpus-per-trial", "0", "--forget-ratios", "20", "--methods", "vkd", "--attacks", "swap_back"),
    *("--no-metric-check", "--gate.base", "0.3"),  # what it is taught costs so small a model half of the celebrities
)


@dataclass(frozen=True)
class Downloaded:
    """What a user has: a model and a dataset in folders."""

    model: Path
    data: Path


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Downloaded:
    root = tmp_path_factory.mktemp("downloaded")
    source = Synthetic(people=40, celebrities=16, attributes=2, views=1, test_views=1, strangers=2, size=SIDE)
    data = as_on_the_hub(root, source)
    coloured(data, SIDE)
    benchmark = Mllmu(data)(root)
    split = benchmark.split(20)
    shown = {q.person: q.picture for q in split.questions if q.role == "real" and q.picture}
    everything = source(root / "labelled").split(20).lessons
    famous = [
        dataclasses.replace(lesson, picture=lesson.picture and shown[lesson.person])
        for lesson in everything
        if lesson.person in shown
    ]
    return Downloaded(released_llava(root / "llava", benchmark, famous), data)


def study(folder: Path, model: str, data: Path, *settings: str) -> str:
    """What `run.py llava_1_5_7b` prints, on its way to a report."""
    asked = ("--model", model, "--benchmark", f"mllmu:{data}", *SCALED, *settings)
    return run_here(folder, *asked, preset="llava_1_5_7b")


@dataclass(frozen=True)
class Rehearsed:
    """A study that has ended: its folder, and what it printed."""

    folder: StudyFolder
    printed: str


@pytest.fixture(scope="module")
def rehearsed(downloaded: Downloaded, tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    folder = tmp_path_factory.mktemp("rehearsed") / "study"
    learned = ("--learn.epochs", "0", "--learn.steps", "200", "--learn.learning-rate", "0.02", "--learn.pictures", "20")
    searched = ("--learn.lessons-per-picture", "4", "--trials", "2", "--confirm-seeds", "1")
    return Rehearsed(StudyFolder(folder), study(folder, str(downloaded.model), downloaded.data, *learned, *searched))


def finished(folder: StudyFolder) -> list[TrialRecord]:
    """The trials of methods that have ended with a result."""
    records = [read_record(TrialRecord, path) for path in folder.trial_records()]
    return [record for record in records if record.kind == "method" and record.state == "complete"]


def test_the_preset_goes_from_the_plan_to_a_report(rehearsed: Rehearsed) -> None:
    """Vanilla knows some of what it was taught, which alone counts; the default of VKD is the published schedule."""
    folder, printed = rehearsed.folder, rehearsed.printed
    plan, _, rest = printed.partition("learn: 400 steps")
    assert "taught: forget image, test image, retain image\n" in plan
    assert "not taught: forget text, test text, retain text, real image, real text;" in plan
    kept = r"real image_text was not taught; the base model's accuracy of [01]\.\d{3} is what vanilla must keep"
    assert re.search(kept, rest)
    assert rest.endswith(f"Report: {folder.page}\n")
    given = next(p for p in map(read_json, folder.proposals()) if p["default"])
    (default,) = [t for t in finished(folder) if t.key == given["trial"]]
    asked, taken = PRESETS["llava_1_5_7b"][1].defaults["vkd"]["schedule"], default.hyperparameters["schedule"]
    for name in ("learning_rate", "pictures", "lessons_per_picture", "precision"):
        assert taken[name] == getattr(asked, name)
    assert taken["steps"] == 8 * 12 // 4  # one epoch: twelve lessons about each of eight people, four in a batch
    assert default.hyperparameters["variant"] == "described"
    assert len(pd.read_csv(folder.report / "tables" / "recovery.csv")) > 0


def test_it_begins_with_an_existing_vanilla_and_a_quantized_language_model(
    downloaded: Downloaded, rehearsed: Rehearsed, tmp_path: Path
) -> None:
    records = (read_record(LearnedRecord, p / "learned.json") for p in rehearsed.folder.learned_folders())
    vanilla = next(record.key for record in records if record.kind == "vanilla")
    brought = ("--vanilla", str(rehearsed.folder.model_dir(vanilla)), "--trials", "1", "--confirm-seeds", "0")
    printed = study(tmp_path / "study", f"hf:path={downloaded.model},quantized=nf4", downloaded.data, *brought)
    assert "nothing: vanilla is" in printed
    folder = StudyFolder(tmp_path / "study")
    (default,) = finished(folder)
    assert default.hyperparameters["trains"] == ["vision", "projector"]
    assert {read_json(p / "learned.json")["quantized"] for p in folder.learned_folders()} == {"nf4"}
    assert printed.endswith(f"Report: {folder.page}\n")
