"""What the report says of the metrics, on a pool whose answers are planted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from analysis import trials
from analysis.sections import _recovery, scores
from analysis.sections import meta_evaluation as told
from analysis.sections.meta_evaluation import MARKERS, WIDEST, draw
from analysis.study_folder import StudyResults, read
from study.core.files import read_json, write_json
from study.core.layout import StudyFolder
from study.core.rows import read_rows, write_rows
from tests.helpers.page import page_of
from tests.helpers.planted import MODELS, plant, plant_pool


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = plant(tmp_path_factory.mktemp("study"), {"vkd": MODELS["perfect"]}, [10, 15])
    plant_pool(found)
    return found


@pytest.fixture(scope="module")
def study(root: Path) -> StudyResults:
    return read(root)


@pytest.fixture(scope="module")
def lines(study: StudyResults) -> pd.DataFrame:
    return told.trust(study).set_index("metric")


def test_planted_metrics_are_told_apart(lines: pd.DataFrame) -> None:
    there = ["probability", "likelihood", "accuracy", "bleu"]
    assert [name for name in lines.index if name in there] == there
    columns = ["auc", "model_auc", "quantized", "relearned"]
    assert list(lines.loc["probability", columns]) == [1.0, 1.0, 0.0, 0.0]
    assert list(lines.loc["likelihood", columns]) == pytest.approx([1.0, 1.0, 0.5, 0.25])
    assert list(lines.loc["accuracy", columns[:2]]) == [0.5, 0.5]
    assert list(lines.loc["bleu", columns[:2]]) == [0.0, 0.0]
    least = 0.025 ** (1 / 12)  # that all twelve people are told apart may still be luck
    assert list(lines.loc["probability", ["auc_low", "auc_high"]]) == pytest.approx([least, 1.0])
    assert list(lines.loc["bleu", ["auc_low", "auc_high"]]) == pytest.approx([0.0, 1 - least])
    assert lines.loc[["accuracy", "bleu"], ["quantized", "relearned"]].isna().all(axis=None)
    assert list(lines.loc["likelihood", ["models_that_know", "models_that_do_not", "people"]]) == [4, 4, 12]


def test_weak_metrics_are_marked_with_the_reason(lines: pd.DataFrame) -> None:
    assert lines["weak"][["probability", "likelihood", "accuracy", "bleu"]].tolist() == [
        "", "", "separates badly", "wrong way round",
    ]  # fmt: skip


def test_an_easily_fooled_metric_is_weak(tmp_path: Path) -> None:
    plant(tmp_path, {"vkd": MODELS["perfect"]}, [10])
    plant_pool(tmp_path, seeds=1, ratios=(10,))
    for path in tmp_path.glob("trials/*/metric_check/quantized.parquet"):
        write_rows(path, read_rows(path).assign(likelihood=0.1))
    found = told.trust(read(tmp_path)).set_index("metric").loc["likelihood"]
    assert (found["quantized"], found["weak"]) == (1.0, "easily fooled")


def test_intervals_are_over_people(tmp_path: Path) -> None:
    """Where people differ the interval is open, and holds the estimate."""
    plant(tmp_path, {"vkd": MODELS["perfect"]}, [10])
    plant_pool(tmp_path, seeds=1, ratios=(10,))
    draw = np.random.default_rng(1)
    for path in sorted(tmp_path.glob("trials/*/metric_check/plain.parquet")):
        rows = read_rows(path)
        write_rows(path, rows.assign(likelihood=rows["likelihood"] / 2 + rows["person"].map(
            dict(zip(rows["person"].unique(), draw.random(rows["person"].nunique()), strict=True)))))  # fmt: skip
    found = told.trust(read(tmp_path)).set_index("metric").loc["likelihood"]
    assert 0.5 < found["auc"] < 1.0
    assert found["auc_low"] < found["auc"] < found["auc_high"]
    assert found["quantized_low"] < found["quantized"] < found["quantized_high"]


def test_the_best_and_accuracy_are_named(study: StudyResults) -> None:
    best, usual = told.said(study)
    assert "probability is the most trustworthy here: AUC 1.00, 0 % of its gap lost by quantization and 0 % " in best
    assert "which most papers report, is weak here (separates badly)" in usual


def test_a_best_metric_that_is_weak_is_not_recommended(tmp_path: Path) -> None:
    plant(tmp_path, {"vkd": MODELS["perfect"]}, [10])
    plant_pool(tmp_path, seeds=1, ratios=(10,))
    for path in tmp_path.glob("trials/*/metric_check/*.parquet"):
        write_rows(path, read_rows(path).assign(likelihood=0.5, probability=0.5))
    first = told.said(read(tmp_path))[0]
    assert "None of" in first
    assert "is weak (separates badly): AUC 0.50" in first


@pytest.mark.slow
def test_one_pair_of_models_and_missing_rows_are_said(tmp_path: Path) -> None:
    plant(tmp_path, {"vkd": MODELS["perfect"]}, [10])
    assert told.said(read(tmp_path)) == []
    plant_pool(tmp_path, seeds=1, ratios=(10,))
    StudyFolder(tmp_path).meta_evaluation("10-0-True", "relearned").unlink()
    *_, pair, missing = told.said(read(tmp_path))
    assert "one pair of models for each forget ratio" in pair
    assert missing == "1 of 2 models of the pool have not been scored relearned."
    assert told.trust(read(tmp_path))["model_auc"].isna().all()
    assert "AUC of models" not in told.table(read(tmp_path)).shown


def test_what_failed_is_no_part_of_the_pool_whatever_lies_beside_its_note(tmp_path: Path) -> None:
    """Rows of before, for one: another attack was tried since and broke the model."""
    plant(tmp_path, {"vkd": MODELS["perfect"]}, [10])
    plant_pool(tmp_path, seeds=1, ratios=(10,))
    path = StudyFolder(tmp_path).meta_evaluation("10-0-True", "relearned")
    note = path.with_suffix(".json")
    write_json(note, {**read_json(note), "failed": "the loss is NaN"})
    assert path.exists()
    assert [sorted(m.rows) for m in told.pool(read(tmp_path)) if m.knows] == [["plain", "quantized"]]
    *_, missing, failed = told.said(read(tmp_path))
    assert missing == "1 of 2 models of the pool have not been scored relearned."
    assert failed == "1 of the pool could not be scored relearned: the loss is NaN."


@pytest.mark.slow
def test_a_model_that_does_not_pass_the_gate_is_left_out_and_said(tmp_path: Path) -> None:
    """It would lower every AUC: here it knows nothing and counts as one that does."""
    plant(tmp_path, {"vkd": MODELS["perfect"]}, [10])
    plant_pool(tmp_path, ratios=(10,))
    path = StudyFolder(tmp_path).meta_evaluation("10-1-True", "plain")
    write_rows(path, read_rows(path).assign(likelihood=0.05))
    note = path.with_suffix(".json")
    assert told.trust(read(tmp_path)).set_index("metric").loc["likelihood", "auc"] == 0.5
    write_json(note, {**read_json(note), "short": "0.500 on forget image_text, less than 0.9"})
    line = told.trust(read(tmp_path)).set_index("metric").loc["likelihood"]
    assert (line["auc"], line["models_that_know"], line["models_that_do_not"]) == (1.0, 1, 2)
    assert told.said(read(tmp_path))[-1] == (
        "1 of 4 models of the pool did not pass the gate and were left out "
        "(vanilla 10 % seed 1: 0.500 on forget image_text, less than 0.9)."
    )


@pytest.mark.slow
def test_table_and_figure_are_in_the_report(root: Path, study: StudyResults) -> None:
    html = page_of(root)
    written = pd.read_csv(root / "report" / "tables" / "metric_check.csv")
    pd.testing.assert_frame_equal(written.drop(columns="weak"), told.trust(study).drop(columns="weak"))
    assert (root / "report" / "figures" / "metric_check.pdf").exists()
    assert ">Meta-evaluation: which metrics to trust</h2>" in html
    assert all(sentence in html for sentence in told.said(study))
    assert "0.50 [0.50, 0.50]" in html


@pytest.mark.slow
def test_the_figure_clips_what_is_far_and_leaves_out_what_is_nothing(study: StudyResults) -> None:
    data = told.trust(study).head(3).assign(quantized=[9.0, 0.25, np.nan], relearned=np.nan)
    [bars, points] = draw(data, []).axes
    drawn = [mark.get_xdata() for mark in points.lines if mark.get_marker() == MARKERS["quantized"].marker]
    assert [float(np.asarray(x)[0]) for x in drawn[:2]] == [WIDEST, 0.25]
    assert np.isnan(np.asarray(drawn[2])[0])
    assert [patch.get_width() for patch in bars.patches if isinstance(patch, Rectangle)] == [0.5, 0.5, 0.0]


@pytest.mark.slow
def test_without_a_check_the_report_has_no_section(tmp_path: Path) -> None:
    page = page_of(plant(tmp_path, {"vkd": MODELS["perfect"]}, [10]))
    assert "Meta-evaluation: which metrics to trust" not in page
    assert not (tmp_path / "report" / "figures" / "metric_check.png").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    plant(tmp_path, {"vkd": MODELS["perfect"]}, [10])
    plant_pool(tmp_path, seeds=1, ratios=(10,))
    path = StudyFolder(tmp_path).meta_evaluation("10-0-True", "plain")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"plain\.parquet is damaged"):
        told.trust(read(tmp_path))


@pytest.mark.slow
def test_the_pool_changes_no_other_number(tmp_path: Path) -> None:
    """Winners, gate, scores and recoveries with their intervals are the same with further seeds and without."""
    plant(tmp_path, {"vkd": MODELS["perfect"], "npo": MODELS["hiding"]}, [10])
    numbers: tuple[Callable[..., pd.DataFrame], ...] = (
        trials.winners, scores.gate, trials.trials, scores.scores, _recovery.recovery,
    )  # fmt: skip
    before = [number(read(tmp_path)) for number in numbers]
    plant_pool(tmp_path, seeds=3, ratios=(10,))
    for number, frame in zip(numbers, before, strict=True):
        pd.testing.assert_frame_equal(number(read(tmp_path)), frame)
