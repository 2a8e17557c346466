"""The stage that asks the pool: which attacks, what is asked, what is asked again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.sections import meta_evaluation as told
from analysis.study_folder import StudyResults as Analysed
from study.attacks.quantization import Quantization
from study.attacks.relearning import Relearning
from study.contracts import Attack
from study.core.errors import Failed, Refused
from study.core.files import read_json
from study.core.layout import StudyFolder
from study.core.rows import read_rows, write_rows
from study.engine.jobs import Job
from study.evaluation.scoring import score
from study.experiment import checkpoints
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.methods.none import NoMethod
from study.metrics.meta_evaluation import State
from study.model.loading import load
from study.presets import PRESETS
from study.settings import Fields, Gate, Study
from study.stages import meta_evaluation as meta_evaluation_module
from study.stages import printed_plan as plans
from study.stages.meta_evaluation import ask, meta_evaluate, states
from study.stages.plan import Plan
from study.stages.preflight import validate_study
from study.training.schedule import Schedule
from tests.helpers.rows import row
from tests.helpers.small import FewQuestions, borrowed
from tests.helpers.studies import searching

pytestmark = pytest.mark.slow

SMOKE = replace(PRESETS["smoke"][1], reference_seeds=1)
SHORT = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=2)
FIELDS: dict[str, Any] = {"people": 0.5, "facts": 1.0, "score_at": (2,), "schedule": SHORT}
APART = Relearning(**FIELDS)


# ---- which attacks ---------------------------------------------------------------------------------------------
def test_the_suite_says_how_models_are_rounded_and_relearned() -> None:
    """Its first quantization, and the first relearning that leaves people out, scored at its end alone."""
    grid: dict[str, tuple[Fields, ...]] = {
        "quantization": ({"format": "nf4"}, {"format": "int8"}),
        "relearning": (FIELDS | {"people": 1.0}, FIELDS | {"facts": 0.5}, FIELDS),
    }
    found = states(replace(SMOKE, attacks=("swap_back", "relearning", "quantization"), attack_grid=grid))
    assert found == {"plain": None, "quantized": Quantization("nf4"), "relearned": replace(APART, facts=0.5)}
    benign = FIELDS | {"people": 1.0, "data": "benign"}
    unrelated = states(replace(SMOKE, attack_grid={"relearning": (FIELDS | {"people": 1.0}, benign)}))
    assert unrelated["relearned"] == Relearning(**benign)


def test_without_them_int4_is_taken_and_nothing_relearned() -> None:
    assert states(replace(SMOKE, attacks=("swap_back",))) == {"plain": None, "quantized": Quantization("int4")}
    composed = replace(SMOKE, attacks=("swap_back/quantization:format=nf4",))
    assert states(composed)["quantized"] == Quantization("int4")
    everybody = FIELDS | {"people": 1.0}
    assert states(replace(SMOKE, attack_grid={"relearning": (everybody,)}))["relearned"] == Relearning(**everybody)


# ---- asking one model ------------------------------------------------------------------------------------------
VANILLA = Learned("vanilla", "base", "benchmark", None, None, SHORT, ("projector", "llm"), 0)
WANTED: Mapping[State, Attack | None] = {"plain": None, "quantized": Quantization("int4"), "relearned": APART}


@pytest.fixture
def context(tmp_path: Path, tiny_folder: Path) -> Iterator[StudyContext]:
    """A study that taught vanilla."""
    found = StudyContext(tmp_path, FewQuestions(), tiny_folder)
    learn(found, VANILLA)
    checkpoints.evict()
    yield found
    checkpoints.evict()


def kept(context: StudyContext, member: Trial) -> dict[str, pd.DataFrame]:
    return {state: read_rows(context.folder.meta_evaluation(member.key, state)) for state in WANTED}


def test_a_model_is_asked_all_about_the_forget_people_in_each_state(context: StudyContext) -> None:
    member = Trial(VANILLA, NoMethod(), "visual", 10, 0)
    ask(context, member, "no reference is loaded", WANTED)
    found = kept(context, member)
    questions = [
        q for q in context.benchmark.split(10).questions if q.role in ("forget", "test") and q.modality == "image_text"
    ]
    assert {(q.task, q.half) for q in questions} >= {("classification", "select"), ("generation", "report")}
    for rows in found.values():
        assert rows["question"].tolist() == [q.id for q in questions]
    vlm = load(context.folder.learned(VANILLA.key) / "model")
    pd.testing.assert_frame_equal(found["plain"], score(vlm, questions).astype(found["plain"].dtypes))
    with borrowed(vlm):
        *_, rounded = Quantization("int4")(vlm, questions, context.request(member, ""))
        expected = score(rounded.vlm, questions)["likelihood"]
    assert found["quantized"]["likelihood"].tolist() == expected.tolist()
    assert (expected != found["plain"]["likelihood"]).any()
    assert (found["relearned"]["likelihood"] != found["plain"]["likelihood"]).any()
    assert [set(rows["step"]) for rows in found.values()] == [{0}, {1}, {2}]


def test_what_the_relearning_gave_is_marked(context: StudyContext) -> None:
    """All facts of one of two people, none of the other."""
    member = Trial(VANILLA, NoMethod(), "visual", 10, 0)
    ask(context, member, "", WANTED)
    rows = kept(context, member)["relearned"]
    [given] = {lesson.person for lesson in APART.given(context.request(member, ""))}
    assert set(rows.loc[rows["person"] == given, "held_out"]) == {""}
    assert set(rows.loc[rows["person"] != given, "held_out"]) == {"person"}


def test_every_model_meets_the_same_relearning(context: StudyContext) -> None:
    """Another seed of the pool is another model, not another attacker: the same weights give the same rows."""
    one, two = (Trial(VANILLA, NoMethod(), "visual", 10, seed) for seed in (0, 5))
    for member in (one, two):
        ask(context, member, "", WANTED)
    pd.testing.assert_frame_equal(kept(context, one)["relearned"], kept(context, two)["relearned"])


def test_a_relearning_that_breaks_the_model_is_noted(context: StudyContext) -> None:
    member = Trial(VANILLA, NoMethod(), "visual", 10, 0)
    ask(context, member, "", WANTED)
    wild = replace(APART, schedule=replace(SHORT, learning_rate=1e30))
    ask(context, member, "", {"relearned": wild, "plain": None})
    path = context.folder.meta_evaluation(member.key, "relearned")
    assert not path.exists()
    assert read_json(path.with_suffix(".json"))["failed"]
    assert read_json(context.folder.meta_evaluation(member.key, "plain").with_suffix(".json"))["failed"] == ""


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

    def teach(plan: Plan, context: StudyContext, models: Sequence[Learned]) -> None:
        for model in dict.fromkeys(models):
            if not (plan.folder.learned(model.key) / "learned.json").exists():
                learn(replace(context, base=tiny_folder), model)
                found.taught.append(f"{model.kind} {model.seed}")

    def run_jobs(name: str, jobs: Sequence[Job], study: Study) -> dict[str, str]:
        for job in jobs:
            job.work(*job.arguments)
            found.jobs[job.name] = set(job.arguments[-1])
        return {}

    monkeypatch.setattr(meta_evaluation_module, "teach", teach)
    monkeypatch.setattr(meta_evaluation_module, "run_jobs", run_jobs)
    return found


def stage(tmp_path: Path, tiny_folder: Path, **settings: Any) -> tuple[Plan, list[str]]:
    study = replace(SMOKE, study_dir=tmp_path, forget_ratios=(10,), **settings)
    plan = validate_study(study, StudyFolder(tmp_path).data)
    for yardstick in plan.baselines(10):  # scored and judged before this stage
        write_rows(plan.folder.rows(yardstick.key, "blind"), pd.DataFrame([row(role="forget", score=0.0)]))
    return plan, meta_evaluate(plan, StudyContext(tmp_path, plan.source, tiny_folder))


def when(folder: Path) -> dict[Path, int]:
    kept = [*folder.glob("trials/*/metric_check/*"), *folder.glob("learned/*/learned.json")]
    return {path: path.stat().st_mtime_ns for path in kept}


def test_more_seeds_teach_and_ask_only_what_is_missing(tmp_path: Path, tiny_folder: Path, ran: Ran) -> None:
    plan, failures = stage(tmp_path, tiny_folder)
    every = {"plain", "quantized", "relearned"}
    assert failures == []
    assert ran.jobs == {"vanilla on 10 % seed 0": every, "reference on 10 % seed 0": every}
    assert [t.key for t in plan.pool(10)] == [t.key for t in plan.baselines(10)]
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


def test_models_of_further_seeds_that_learned_nothing_are_left_out(tmp_path: Path, tiny_folder: Path, ran: Ran) -> None:
    """Those of the study's own seed are not: without them there would be no study."""
    stage(tmp_path, tiny_folder, metric_seeds=1, gate=Gate(known=0.9, test=0.0, blind=1.0))
    members = told.pool(Analysed(tmp_path, {}))
    assert [(m.seed, m.knows) for m in members] == [(0, False), (0, True), (1, False)]
    (said,) = [line for line in told.said(Analysed(tmp_path, {})) if "did not pass the gate" in line]
    assert said.startswith("1 of 4 models of the pool did not pass the gate and were left out (vanilla 10 % seed 1: 0.")
    assert said.endswith(" on forget image_text, less than 0.9).")
    before = when(tmp_path)
    stage(tmp_path, tiny_folder, metric_seeds=1, gate=Gate(known=0.9, test=0.0, blind=1.0))
    assert when(tmp_path) == before


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

    def fail(plan: Plan, context: StudyContext, models: Sequence[Learned]) -> None:
        raise Failed("learning failed: out of memory")

    monkeypatch.setattr(meta_evaluation_module, "teach", fail)
    _, failures = stage(tmp_path, tiny_folder, metric_seeds=1)
    assert failures == ["meta-evaluation: learning failed: out of memory"]
    assert ran.jobs == {}


def test_without_the_check_nothing_is_done(tmp_path: Path, tiny_folder: Path, ran: Ran) -> None:
    assert stage(tmp_path, tiny_folder, metric_check=False)[1] == []
    assert (ran.taught, ran.jobs) == ([], {})
    with pytest.raises(ValueError, match="metric_seeds=2 are for the meta-evaluation alone"):
        replace(SMOKE, metric_check=False, metric_seeds=2)
    with pytest.raises(ValueError, match="metric_seeds=-1: must not be negative"):
        replace(SMOKE, metric_seeds=-1)


def test_the_pool_can_only_grow(tmp_path: Path) -> None:
    study = replace(SMOKE, study_dir=tmp_path, metric_seeds=2)
    searching(study, tmp_path / "data")
    validate_study(replace(study, metric_seeds=3), tmp_path / "data")
    with pytest.raises(Refused, match="metric_seeds: 2 on disk, 1 requested; a study can only grow"):
        validate_study(replace(study, metric_seeds=1), tmp_path / "data")


def test_the_plan_names_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = replace(PRESETS["tiny"][1], study_dir=tmp_path)
    minutes = []
    for seeds in (0, 2):
        told_lines: list[str] = []
        monkeypatch.setattr("study.stages.printed_plan.console.print", lambda line, **_: told_lines.append(line))  # noqa: B023
        plans.print_plan(validate_study(replace(study, metric_seeds=seeds), tmp_path))
        shown = "\n".join(told_lines)
        minutes.append(int(shown.partition("about ")[2].split()[0]))
        assert f"metrics  meta-evaluation: {2 * (1 + seeds)} baseline models" in shown
        assert ("2 of these models are taught for it" in shown) == (seeds == 2)
    assert minutes[1] > minutes[0]
