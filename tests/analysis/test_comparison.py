"""Winners beside the references and each other, against brute force on the rows that were written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wasserstein_distance

from analysis import comparison, trials
from analysis.study_folder import StudyResults, read
from study.core.files import write_json
from study.core.rows import read_rows, write_rows
from study.core.terms import Goal
from study.metrics import objectives
from study.metrics.scored import MEASURES
from tests.helpers.planted import Model, Planter

MODELS = {"vkd": Model(0.35, 0.25, keep=0.85), "npo": Model(0.5, 0.4, keep=0.7)}


def study_of(root: Path, goal: Goal = "visual") -> StudyResults:
    """Noisy rows of two methods with two seeds and three references; people are asked different numbers of questions,
    and one of them none in text."""
    planter = Planter(root, noise=0.15)
    planter.study([*MODELS, "twin"], [10], goal=goal)
    planter.yardsticks(10, references=[Model()] * 3, attacked=False)
    winners = {}
    for method, model in MODELS.items():
        winners[method] = {"10": {"trials": [planter.trial(method, 10, model, seed=s, report=True) for s in range(2)]}}
    winners["twin"] = winners["vkd"]
    write_json(root / "winners.json", winners)
    for path in root.glob("trials/*/rows/report.parquet"):
        rows = read_rows(path)
        few = rows["person"].isin(["forget-1", "retain-2", "real-3"]) & rows["question"].str.endswith(("2", "3"))
        silent = (rows["person"] == "forget-7") & (rows["modality"] == "text")
        write_rows(path, rows[~few & ~silent])
    return read(root)


@pytest.fixture(scope="module", params=["visual", "full"])
def study(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> StudyResults:
    return study_of(tmp_path_factory.mktemp("study"), request.param)


def runs_of(study: StudyResults, label: str) -> list[pd.DataFrame]:
    members = dict(study.labelled(10))[label]
    return [read_rows(study.folder.rows(trial.key, "report")) for trial in members]


def model_of(study: StudyResults, label: str) -> comparison.Model:
    found = comparison.model(study, label, study.winners[label, 10], 10)
    assert found is not None
    return found


def bench_of(study: StudyResults) -> comparison.Bench:
    found = comparison.bench(study, 10)
    assert found is not None
    return found


def brute_gap(rows: pd.DataFrame, references: Sequence[pd.DataFrame], goal: str) -> float:
    """Wasserstein-1 by scipy, term by term."""
    modalities = ["image_text"] if goal == "visual" else ["image_text", "text"]
    found = []
    for role in ("forget", "test"):
        for modality in modalities:
            for task, measure in MEASURES.items():
                where = f"role == '{role}' and modality == '{modality}' and task == '{task}'"
                own, *theirs = (part.query(where).groupby("person")[measure].mean() for part in (rows, *references))
                found.append(wasserstein_distance(own, np.concatenate(theirs)))
    return float(np.mean(found))


@pytest.mark.slow
def test_the_gap_is_that_of_scipy(study: StudyResults) -> None:
    references = runs_of(study, "reference")
    for label in MODELS:
        expected = np.mean([brute_gap(rows, references, study.goal) for rows in runs_of(study, label)])
        found = comparison.gap_of(model_of(study, label), bench_of(study))
        assert found.value == pytest.approx(expected)
        assert found.interval().low < found.value < found.interval().high
        assert trials.winners(study).set_index("method").loc[label, "forget_gap"] == pytest.approx(expected)


def test_the_noise_floor_is_each_reference_beside_the_others(study: StudyResults) -> None:
    one, two, three = runs_of(study, "reference")
    expected = [brute_gap(mine, rest, study.goal) for mine, rest in
                ((one, [two, three]), (two, [one, three]), (three, [one, two]))]  # fmt: skip
    assert comparison.floor(study, 10) == pytest.approx(expected)
    keys = [trial.key for trial in study.yardsticks("reference", 10)]
    shown = [trials.objectives_of(study, key, "report")[0]["forget_gap"] for key in keys]
    assert shown == pytest.approx(expected)


def test_the_distance_is_that_of_the_objectives(study: StudyResults) -> None:
    """Of gap and utility, the mean over seeds, by the functions that a search optimizes."""
    vanilla, references = runs_of(study, "vanilla")[0], runs_of(study, "reference")

    def mean(label: str) -> float:
        found = [objectives.objectives(rows, vanilla, references, study.goal) for rows in runs_of(study, label)]
        return float(np.mean([objectives.distance_to_ideal(**values) for values in found]))

    near, far, bench = model_of(study, "vkd"), model_of(study, "npo"), bench_of(study)
    assert comparison.distance_of(near, bench).value == pytest.approx(mean("vkd"))
    assert comparison.difference(near, far, bench).value == pytest.approx(mean("npo") - mean("vkd"))


def test_the_difference_turns_round_with_its_models(study: StudyResults) -> None:
    near, far, bench = model_of(study, "vkd"), model_of(study, "npo"), bench_of(study)
    mean, low, high = comparison.difference(near, far, bench).interval()
    back = comparison.difference(far, near, bench).interval()
    assert back == pytest.approx((-mean, -high, -low))
    assert low < mean < high


def test_twins_do_not_differ(study: StudyResults) -> None:
    """One set of trials under two names. Their seeds are drawn for each, so 0 lies inside an interval."""
    found = comparison.difference(model_of(study, "vkd"), model_of(study, "twin"), bench_of(study))
    mean, low, high = found.interval()
    assert mean == 0.0
    assert low < 0.0 < high


def test_units_of_an_axis_are_the_same_people_everywhere(study: StudyResults) -> None:
    """Also of a person who is not asked in one of the groups."""
    bench, found = bench_of(study), model_of(study, "vkd")
    assert len(bench.references) == len(found.forget) == 12
    sizes = {block.axes[0]: block.values.shape[0] for block in found.keep}
    assert sizes["retain people"] == 12
    assert sizes["real people"] == 6
    assert all(len(mine.values) == len(before) for mine, before in zip(found.keep, bench.vanilla, strict=True))
    if study.goal == "visual":  # what is told in text of the people to be forgotten has to stay
        assert sizes["forget people"] == 12


def test_whom_a_model_knows_most_of(tmp_path: Path) -> None:
    """The mean over terms and seeds: one seed alone knows forget-3, both know forget-5."""
    planter = Planter(tmp_path)
    planter.study(["vkd"], [10])
    planter.yardsticks(10, attacked=False)
    runs = [Model(people={"forget-3": 0.9, "forget-5": 0.7}), Model(people={"forget-3": 0.4, "forget-5": 0.7})]
    keys = [planter.trial("vkd", 10, model, seed=seed, report=True) for seed, model in enumerate(runs)]
    who, known = comparison.most_known(read(tmp_path), keys, 10)
    assert who == "forget-5"
    assert known == pytest.approx(0.7)
    assert comparison.most_known(read(tmp_path), [], 10)[0] == ""
