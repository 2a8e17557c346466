"""The stage that asks the pool, and what the report says of its answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from analysis import metric_check as told
from analysis import report, robustness, table
from analysis.folder import Study as Analysed
from analysis.folder import read
from analysis.metric_check_figure import MARKERS, WIDEST, draw
from study import metric_check, outline
from study import trial as trials
from study.attacks.quantization import Quantization
from study.attacks.relearning import Relearning
from study.benchmarks.synthetic import Synthetic
from study.cluster import Job
from study.contracts import Attack, Learned, Trial
from study.learning import learn
from study.methods.none import NoMethod
from study.metric_check import ask, check_metrics, states
from study.metric_trust import State
from study.plan import Failed, Plan, Refused, prepared, settle
from study.presets import PRESETS, Study
from study.scoring import score
from study.store import Folder, read_json, read_rows, write_rows
from study.training import Schedule
from study.trial import Bench
from study.vlm import load, restored
from tests.planted import MODELS, plant, plant_pool

SMOKE = PRESETS["smoke"][1]
SHORT = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=2)
APART = Relearning(people=0.5, facts=1.0, score_at=(2,), schedule=SHORT)
PROJECT = Path(__file__).parent.parent


# ---- which attacks ---------------------------------------------------------------------------------------------
def test_the_suite_says_how_models_are_rounded_and_relearned() -> None:
    """Its first quantisation, and the first relearning that leaves people out, scored at its end alone."""
    grid: dict[str, tuple[Attack, ...]] = {
        "quantization": (Quantization("nf4"), Quantization("int8")),
        "relearning": (replace(APART, people=1.0), replace(APART, facts=0.5), APART),
    }
    found = states(replace(SMOKE, attacks=("swap_back", "relearning", "quantization"), attack_grid=grid))
    assert found == {"plain": None, "quantized": Quantization("nf4"), "relearned": replace(APART, facts=0.5)}
    benign = replace(APART, people=1.0, data="benign")
    unrelated = states(replace(SMOKE, attack_grid={"relearning": (replace(APART, people=1.0), benign)}))
    assert unrelated["relearned"] == benign


def test_without_them_int4_is_taken_and_nothing_relearned() -> None:
    assert states(replace(SMOKE, attacks=("swap_back",))) == {"plain": None, "quantized": Quantization("int4")}
    composed = replace(SMOKE, attacks=("swap_back/quantization:format=nf4",))
    assert states(composed)["quantized"] == Quantization("int4")
    everybody = replace(APART, people=1.0)
    assert states(replace(SMOKE, attack_grid={"relearning": (everybody,)}))["relearned"] == everybody


# ---- asking one model ------------------------------------------------------------------------------------------
VANILLA = Learned("vanilla", "base", "benchmark", None, None, SHORT, ("projector", "llm"), 0)
WANTED: Mapping[State, Attack | None] = {"plain": None, "quantized": Quantization("int4"), "relearned": APART}


@pytest.fixture
def bench(tmp_path: Path, tiny_folder: Path) -> Iterator[Bench]:
    """A study that taught vanilla."""
    found = Bench(tmp_path, Synthetic(people=20, celebrities=8, views=2, strangers=8), tiny_folder)
    learn(tmp_path, VANILLA, found.benchmark, tiny_folder, "cpu", None)
    trials.learned_model.cache_clear()
    yield found
    trials.learned_model.cache_clear()


def kept(bench: Bench, member: Trial) -> dict[str, pd.DataFrame]:
    return {state: read_rows(bench.folder.metric_check(member.key, state)) for state in WANTED}


def test_a_model_is_asked_all_about_the_forget_people_in_each_state(bench: Bench) -> None:
    member = Trial(VANILLA, NoMethod(), "visual", 10, 0)
    ask(bench, member, "no reference is loaded", WANTED)
    found = kept(bench, member)
    questions = [
        q for q in bench.benchmark.split(10).questions if q.role in ("forget", "test") and q.modality == "image_text"
    ]
    assert {(q.task, q.half) for q in questions} >= {("classification", "select"), ("generation", "report")}
    for rows in found.values():
        assert rows["question"].tolist() == [q.id for q in questions]
    vlm = load(bench.folder.learned(VANILLA.key) / "model")
    pd.testing.assert_frame_equal(found["plain"], score(vlm, questions).astype(found["plain"].dtypes))
    with restored(vlm):
        *_, rounded = Quantization("int4")(vlm, questions, bench.request(member, ""))
        expected = score(rounded.vlm, questions)["likelihood"]
    assert found["quantized"]["likelihood"].tolist() == expected.tolist()
    assert (expected != found["plain"]["likelihood"]).any()
    assert (found["relearned"]["likelihood"] != found["plain"]["likelihood"]).any()
    assert [set(rows["step"]) for rows in found.values()] == [{0}, {1}, {2}]


def test_what_the_relearning_gave_is_marked(bench: Bench) -> None:
    """All facts of one of two people, none of the other."""
    member = Trial(VANILLA, NoMethod(), "visual", 10, 0)
    ask(bench, member, "", WANTED)
    rows = kept(bench, member)["relearned"]
    [given] = {lesson.person for lesson in APART.given(bench.request(member, ""))}
    assert set(rows.loc[rows["person"] == given, "held_out"]) <= {"", "fact"}
    assert set(rows.loc[rows["person"] != given, "held_out"]) == {"person"}


def test_every_model_meets_the_same_relearning(bench: Bench) -> None:
    """Another seed of the pool is another model, not another attacker: the same weights give the same rows."""
    one, two = (Trial(VANILLA, NoMethod(), "visual", 10, seed) for seed in (0, 5))
    for member in (one, two):
        ask(bench, member, "", WANTED)
    pd.testing.assert_frame_equal(kept(bench, one)["relearned"], kept(bench, two)["relearned"])


def test_a_relearning_that_breaks_the_model_is_noted(bench: Bench) -> None:
    member = Trial(VANILLA, NoMethod(), "visual", 10, 0)
    ask(bench, member, "", WANTED)
    wild = replace(APART, schedule=replace(SHORT, learning_rate=1e30))
    ask(bench, member, "", {"relearned": wild, "plain": None})
    path = bench.folder.metric_check(member.key, "relearned")
    assert not path.exists()
    assert read_json(path.with_suffix(".json"))["failed"]
    assert read_json(bench.folder.metric_check(member.key, "plain").with_suffix(".json"))["failed"] == ""


# ---- the stage -------------------------------------------------------------------------------------------------
@dataclass
class Ran:
    """What a stage without Ray taught and ran."""

    taught: list[str] = field(default_factory=list)
    jobs: dict[str, set[State]] = field(default_factory=dict)

    def clear(self) -> None:
        self.taught, self.jobs = [], {}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> Ran:
    found = Ran()

    def teach(plan: Plan, bench: Bench, models: Sequence[Learned]) -> None:
        for model in dict.fromkeys(models):
            if not (plan.folder.learned(model.key) / "learned.json").exists():
                learn(plan.root, model, plan.benchmark, tiny_folder, "cpu", None)
                found.taught.append(f"{model.kind} {model.seed}")

    def run_jobs(name: str, jobs: Sequence[Job], study: Study) -> dict[str, str]:
        for job in jobs:
            job.work(*job.arguments)
            found.jobs[job.name] = set(job.arguments[-1])
        return {}

    monkeypatch.setattr(metric_check, "teach", teach)
    monkeypatch.setattr(metric_check, "run_jobs", run_jobs)
    return found


def stage(tmp_path: Path, tiny_folder: Path, **settings: Any) -> tuple[Plan, list[str]]:
    study = replace(SMOKE, study_dir=tmp_path, forget_ratios=(10,), **settings)
    plan = prepared(study, Folder(tmp_path).data)
    return plan, check_metrics(plan, Bench(tmp_path, plan.source, tiny_folder))


def when(folder: Path) -> dict[Path, int]:
    kept = [*folder.glob("trials/*/metric_check/*"), *folder.glob("learned/*/learned.json")]
    return {path: path.stat().st_mtime_ns for path in kept}


def test_more_seeds_teach_and_ask_only_what_is_missing(tmp_path: Path, tiny_folder: Path, ran: Ran) -> None:
    plan, failures = stage(tmp_path, tiny_folder)
    every = {"plain", "quantized", "relearned"}
    assert failures == []
    assert ran.jobs == {"vanilla on 10 % seed 0": every, "reference on 10 % seed 0": every}
    assert [t.key for t in plan.pool(10)] == [t.key for t in plan.yardsticks(10)]
    before = when(tmp_path)
    ran.clear()
    stage(tmp_path, tiny_folder)
    assert (ran.taught, ran.jobs) == ([], {})
    plan, _ = stage(tmp_path, tiny_folder, metric_seeds=1)
    assert ran.taught == ["vanilla 1", "reference 1"]
    assert ran.jobs == {"vanilla on 10 % seed 1": every, "reference on 10 % seed 1": every}
    assert {path: time for path, time in when(tmp_path).items() if path in before} == before
    assert len(when(tmp_path)) == 2 * len(before)
    members = told.pool(Analysed(tmp_path, {}))
    assert [(m.ratio, m.seed, m.knows) for m in members] == [(10, s, k) for s in (0, 1) for k in (False, True)]
    assert not list(tmp_path.glob("trials/*/trial.json"))  # so nothing else of the study meets them


def test_another_attack_of_the_suite_asks_only_that_state_again(tmp_path: Path, tiny_folder: Path, ran: Ran) -> None:
    stage(tmp_path, tiny_folder)
    ran.clear()
    stage(tmp_path, tiny_folder, attacks=("relearning", "quantization:format=nf4"))
    assert ran.jobs == {f"{kind} on 10 % seed 0": {"quantized"} for kind in ("vanilla", "reference")}


def test_a_model_that_cannot_be_taught_fails_alone(
    tmp_path: Path, tiny_folder: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(tmp_path, tiny_folder)
    ran.clear()

    def fail(plan: Plan, bench: Bench, models: Sequence[Learned]) -> None:
        raise Failed("learning failed: out of memory")

    monkeypatch.setattr(metric_check, "teach", fail)
    _, failures = stage(tmp_path, tiny_folder, metric_seeds=1)
    assert failures == ["metric check: learning failed: out of memory"]
    assert ran.jobs == {}


def test_without_the_check_nothing_is_done(tmp_path: Path, tiny_folder: Path, ran: Ran) -> None:
    assert stage(tmp_path, tiny_folder, metric_check=False)[1] == []
    assert (ran.taught, ran.jobs) == ([], {})
    with pytest.raises(ValueError, match="metric_seeds=2 serve the metric check alone"):
        replace(SMOKE, metric_check=False, metric_seeds=2)
    with pytest.raises(ValueError, match="metric_seeds=-1: must not be negative"):
        replace(SMOKE, metric_seeds=-1)


def test_the_pool_can_only_grow(tmp_path: Path) -> None:
    study = replace(SMOKE, study_dir=tmp_path, metric_seeds=2)
    settle(prepared(study, tmp_path / "data"))
    prepared(replace(study, metric_seeds=3), tmp_path / "data")
    with pytest.raises(Refused, match="metric_seeds: 2 there, 1 asked; a study can only grow"):
        prepared(replace(study, metric_seeds=1), tmp_path / "data")


def test_the_plan_names_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = replace(PRESETS["tiny"][1], study_dir=tmp_path)
    minutes = []
    for seeds in (0, 2):
        told_lines: list[str] = []
        monkeypatch.setattr("study.outline.console.print", lambda line, **_: told_lines.append(line))  # noqa: B023
        outline.show(prepared(replace(study, metric_seeds=seeds), tmp_path))
        shown = "\n".join(told_lines)
        minutes.append(int(shown.partition("about ")[2].split()[0]))
        assert f"metrics  {4 * (1 + seeds)} times vanilla or a reference" in shown
        assert ("6 of these models are taught for it" in shown) == (seeds == 2)
    assert minutes[1] > minutes[0]


# ---- what the report says --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = plant(tmp_path_factory.mktemp("study"), {"vkd": MODELS["perfect"]}, [10, 15])
    plant_pool(found)
    return found


@pytest.fixture(scope="module")
def study(root: Path) -> Analysed:
    return read(root)


@pytest.fixture(scope="module")
def lines(study: Analysed) -> pd.DataFrame:
    return told.trust(study).set_index("metric")


def test_planted_metrics_are_told_apart(lines: pd.DataFrame) -> None:
    there = ["probability", "likelihood", "accuracy", "bleu"]
    assert [name for name in lines.index if name in there] == there
    columns = ["auc", "auc_low", "auc_high", "model_auc", "quantized", "relearned"]
    assert list(lines.loc["probability", columns]) == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert list(lines.loc["likelihood", columns]) == pytest.approx([1.0, 1.0, 1.0, 1.0, 0.5, 0.25])
    assert list(lines.loc["accuracy", columns[:4]]) == [0.5] * 4
    assert list(lines.loc["bleu", columns[:4]]) == [0.0] * 4
    assert lines.loc[["accuracy", "bleu"], ["quantized", "relearned"]].isna().all(axis=None)
    assert list(lines.loc["likelihood", ["models_that_know", "models_that_do_not", "people"]]) == [4, 4, 8]


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


def test_the_best_and_accuracy_are_named(study: Analysed) -> None:
    best, usual = told.said(study)
    assert "probability is the one to trust most here: AUC 1.00, 0 % of its gap lost by rounding and 0 % " in best
    assert "which most papers report, is among the weak ones here (separates badly)" in usual


def test_a_best_metric_that_is_weak_is_not_recommended(tmp_path: Path) -> None:
    plant(tmp_path, {"vkd": MODELS["perfect"]}, [10])
    plant_pool(tmp_path, seeds=1, ratios=(10,))
    for path in tmp_path.glob("trials/*/metric_check/*.parquet"):
        write_rows(path, read_rows(path).assign(likelihood=0.5, probability=0.5))
    first = told.said(read(tmp_path))[0]
    assert "None of" in first
    assert "is weak (separates badly): AUC 0.50" in first


def test_one_pair_of_models_and_missing_rows_are_said(tmp_path: Path) -> None:
    plant(tmp_path, {"vkd": MODELS["perfect"]}, [10])
    assert told.said(read(tmp_path)) == []
    plant_pool(tmp_path, seeds=1, ratios=(10,))
    Folder(tmp_path).metric_check("10-0-True", "relearned").unlink()
    *_, pair, missing = told.said(read(tmp_path))
    assert "one pair of models for each forget ratio" in pair
    assert missing == "1 of 2 models of the pool have no rows relearned."
    assert told.trust(read(tmp_path))["model_auc"].isna().all()
    assert "AUC of models" not in told.table(read(tmp_path)).shown


def test_table_and_figure_are_in_the_report(root: Path, study: Analysed) -> None:
    page = report.build(root).page
    written = pd.read_csv(root / "report" / "tables" / "metric_check.csv")
    pd.testing.assert_frame_equal(written.drop(columns="weak"), told.trust(study).drop(columns="weak"))
    assert (root / "report" / "figures" / "metric_check.pdf").exists()
    html = page.read_text(encoding="utf-8")
    assert "<h2>Which number to trust</h2>" in html
    assert all(sentence in html for sentence in told.said(study))
    assert "0.50 [0.50, 0.50]" in html


def test_the_figure_clips_what_is_far_and_leaves_out_what_is_nothing(study: Analysed) -> None:
    data = told.trust(study).head(3).assign(quantized=[9.0, 0.25, np.nan], relearned=np.nan)
    [bars, points] = draw(data, []).axes
    drawn = [mark.get_xdata() for mark in points.lines if mark.get_marker() == MARKERS["quantized"].marker]
    assert [float(np.asarray(x)[0]) for x in drawn[:2]] == [WIDEST, 0.25]
    assert np.isnan(np.asarray(drawn[2])[0])
    assert [patch.get_width() for patch in bars.patches if isinstance(patch, Rectangle)] == [0.5, 0.5, 0.0]


def test_without_a_check_the_report_has_no_section(tmp_path: Path) -> None:
    page = report.build(plant(tmp_path, {"vkd": MODELS["perfect"]}, [10])).page
    assert "Which number to trust" not in page.read_text(encoding="utf-8")
    assert not (tmp_path / "report" / "figures" / "metric_check.png").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    plant(tmp_path, {"vkd": MODELS["perfect"]}, [10])
    plant_pool(tmp_path, seeds=1, ratios=(10,))
    path = Folder(tmp_path).metric_check("10-0-True", "plain")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"plain\.parquet is damaged"):
        told.trust(read(tmp_path))


def test_the_pool_changes_no_other_number(tmp_path: Path) -> None:
    """Winners, gate, scores and recoveries with their intervals are the same with further seeds and without."""
    plant(tmp_path, {"vkd": MODELS["perfect"], "npo": MODELS["hiding"]}, [10])
    numbers: tuple[Callable[..., pd.DataFrame], ...] = (
        table.winners, table.gate, table.trials, table.scores, robustness.recovery,
    )  # fmt: skip
    before = [number(read(tmp_path)) for number in numbers]
    plant_pool(tmp_path, seeds=3, ratios=(10,))
    for number, frame in zip(numbers, before, strict=True):
        pd.testing.assert_frame_equal(number(read(tmp_path)), frame)


# ---- all of it -------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_study_checks_its_metrics_and_grows(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    few = ("--forget-ratios", "10", "--methods", "gradient_ascent", "--trials", "1", "--confirm-seeds", "0")

    def run(*settings: str) -> str:
        command = [sys.executable, str(PROJECT / "study" / "run.py"), "smoke", "--study-dir", str(folder), *few]
        done = subprocess.run([*command, *settings], capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "metrics: 2/2" in run()
    before = when(folder)
    winners = (folder / "report" / "tables" / "winners.csv").read_bytes()
    printed = run("--metric-seeds", "1")
    assert "vanilla seed 1, reference 10 % seed 1" in printed
    assert "metrics: 2/2" in printed
    assert "search" not in printed.partition("time ")[2]
    assert {path: time for path, time in when(folder).items() if path in before} == before
    assert len(when(folder)) == 2 * len(before)
    assert (folder / "report" / "tables" / "winners.csv").read_bytes() == winners
    assert "<h2>Which number to trust</h2>" in (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert set(pd.read_csv(folder / "report" / "tables" / "metric_check.csv")["metric"]) > {"accuracy", "ks"}
    assert "done in" not in run("--metric-seeds", "1")
