"""The plan's budget: operations from shapes, hours by what has ended, and what is done is no longer asked for."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from study import status
from study.base_models.hf import Hf
from study.contracts import Method
from study.core import inventory
from study.core.failures import Failure
from study.core.records import (
    AttackRecord,
    MethodProposal,
    PlanRecord,
    SequenceRecord,
    Start,
    TrialRecord,
    read_record,
    write_record,
)  # fmt: skip
from study.data.benchmark import Benchmark, Lesson, Question
from study.data.picture import Picture
from study.experiment.records import learned_record
from study.methods.gradient_ascent import GradientAscent
from study.methods.mmunlearner import MMUnlearner
from study.methods.npo import NPO
from study.methods.preference_optimization import PreferenceOptimization
from study.methods.vkd import VKD
from study.model.loading import Loading
from study.model.memory_estimate import GIB, estimates, shape
from study.model.vlm import VLM
from study.presets import PRESETS
from study.settings import Cost
from study.stages import outlay
from study.stages.ended import Each
from study.stages.launch import noted
from study.stages.manifest import settle
from study.stages.outlay import ASSUMED, EVERY, PETA, StageWork, ended, lines, note, stages
from study.stages.plan import Plan
from study.stages.preflight import validate_study
from study.stages.workload import LOSSES, Shapes, scored, tokens_of, trained, unlearned
from study.training.schedule import Schedule
from tests.helpers.newcomers import newcomer_folder

SHAPES = Shapes({"vision": 3 * 10**8, "projector": 2 * 10**7, "llm": 66 * 10**8}, picture_tokens=576, patches=576)
"""About LLaVA-1.5-7B."""
SHOWN = Picture(b"one", "one")
LESSON = Lesson("1", "?" * 200, "!" * 184, SHOWN)  # 96 tokens
TERA = 1e12


def test_a_lora_step_costs_what_is_counted_at_the_shapes_of_llava() -> None:
    """18.6 TFLOP for a sample of 672 tokens, by docs/cost.md, which counts attention too; all weights 28.0."""
    schedule = Schedule(steps=1, pictures=1, lessons_per_picture=1, lora_rank=16)
    assert trained(SHAPES, schedule, [LESSON], ("llm",)) == pytest.approx(18.6 * TERA, rel=0.05)
    assert trained(SHAPES, replace(schedule, lora_rank=0), [LESSON], ("vision", "llm")) == pytest.approx(
        28.0 * TERA, rel=0.06
    )


def test_training_grows_with_steps_and_batch() -> None:
    one = Schedule(steps=1, pictures=1, lessons_per_picture=1, lora_rank=16)
    base = trained(SHAPES, one, [LESSON], ("llm",))
    assert trained(SHAPES, replace(one, steps=7, pictures=3, accumulate=2), [LESSON], ("llm",)) == 42 * base
    more = trained(SHAPES, replace(one, lessons_per_picture=2), [LESSON], ("llm",)) - base
    assert more == pytest.approx(2 * SHAPES.token * 96)
    assert trained(SHAPES, one, [], ("llm",)) == 0.0


def question(number: int, picture: Picture | None) -> Question:
    asked = ("?" * 40, "yes", ("yes", "no"), picture)
    return Question(f"{number}", "1", "forget", "image_text", "classification", "select", *asked)


def test_questions_about_one_picture_read_it_once() -> None:
    one, two = (scored(SHAPES, [question(i, SHOWN) for i in range(n)], replies=False) for n in (1, 2))
    asked = SHAPES.token * tokens_of(("?" * 40, "yes", "no"))
    assert two - one == pytest.approx(asked)
    assert one == pytest.approx(asked + SHAPES.token * 576 + SHAPES.picture)
    assert scored(SHAPES, [question(0, None)], replies=False) == pytest.approx(asked)


def test_a_method_trains_for_the_epochs_of_its_schedule(benchmark: Benchmark) -> None:
    study = PRESETS["llava_1_5_7b"][1]
    default: Method = GradientAscent(schedule=Schedule(epochs=1.0, pictures=4, lessons_per_picture=1, lora_rank=16))
    few, many = (unlearned(SHAPES, default, study, benchmark.split(ratio)) for ratio in (5, 15))
    assert few > 0
    assert many == pytest.approx(3 * few, rel=0.1)
    assert LOSSES == 2
    assert unlearned(SHAPES, replace(default, schedule=None), study, benchmark.split(5)) == 0.0  # type: ignore[type-var]


# ---- memory --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (GradientAscent(), "unlearn: all weights"),
        (NPO(), "unlearn: all weights, with a copy as reference"),
        (PreferenceOptimization(), "unlearn: all weights"),
        (PreferenceOptimization(form="dpo"), "unlearn: all weights, with a copy as reference"),
        (MMUnlearner(), "unlearn: all weights, behind a mask"),
        (NPO(trains=("vision",)), "unlearn: visual module, loss on answers"),
        (VKD(), "unlearn: visual module, loss on answers"),
        (VKD(variant="features"), "unlearn: visual module, features only"),
        (NPO(schedule=Schedule(lora_rank=16)), "unlearn: adapters of rank 16"),
    ],
)
def test_the_memory_of_a_method_is_that_of_its_kind_alone(method: Method, kind: str, tiny: VLM) -> None:
    """All weights by themselves take less than with a copy or a mask, and features less than answers."""
    assert outlay.kind_of(method) == kind
    assert [found.kind for found in estimates(shape(tiny))].count(kind) == 1


def test_a_job_takes_what_its_methods_hold(plan: Plan, tiny: VLM) -> None:
    def needed(method: Method) -> float:
        return outlay.memory(replace(plan, defaults={"it": method}), shape(tiny))

    few = PRESETS["smoke"][1].learn
    alone, beside = needed(GradientAscent(schedule=few)), needed(NPO(schedule=few))
    assert beside - alone == pytest.approx(shape(tiny).weights / GIB)


def test_the_patches_of_a_tower_with_sides_in_pairs_are_counted(plan: Plan, tmp_path: Path) -> None:
    found = outlay.shapes_of(replace(plan, model=Hf(newcomer_folder("internvl", tmp_path))))
    assert found is not None
    assert found[0].patches == 4**2  # 56 pixels in patches of 14


# ---- what is left --------------------------------------------------------------------------------------------------
@pytest.fixture
def plan(tmp_path: Path, generated: Path) -> Plan:
    return validate_study(replace(PRESETS["smoke"][1], study_dir=tmp_path / "study"), generated)


def ends(plan: Plan, key: str, *, seed: int, flops: float, seconds: float) -> None:
    cost = {"unlearn_flops": flops, "unlearn_seconds": seconds}
    record = TrialRecord(key, "complete", "vkd", 10, seed, "visual", Start("vanilla", "v"), cost=cost)
    plan.folder.record(key).parent.mkdir(parents=True)
    write_record(plan.folder.record(key), record)


def proposes(plan: Plan, number: int, key: str) -> None:
    path = plan.folder.proposal("vkd", number)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, MethodProposal(number, {}, key, ratio=10))


def of(plan: Plan, name: str, calculated: dict[str, float] | None = None) -> StageWork:
    return next(stage for stage in stages(plan, calculated or {}, ended(plan)) if stage.name == name)


def test_hours_are_not_guessed_without_a_measure(plan: Plan) -> None:
    assert [stage.seconds for stage in stages(plan, {}, ended(plan))] == [None] * 5
    assert any(line.startswith("search") and line.split() == ["search", "8", "-", "-"] for line in lines(plan))
    gpu = replace(plan, study=replace(plan.study, gpus_per_trial=2))
    assert of(gpu, "search", {"search": ASSUMED}).each == Each(ASSUMED, 0.5)
    assert of(gpu, "search", {"search": ASSUMED}).hours == pytest.approx(8 * 0.5 * 2 / 3600)


def test_trials_that_have_ended_say_what_the_rest_costs(plan: Plan) -> None:
    ends(plan, "one", seed=0, flops=10 * TERA, seconds=20.0)
    ends(plan, "two", seed=0, flops=30 * TERA, seconds=60.0)
    ends(plan, "again", seed=1, flops=2 * TERA, seconds=4.0)
    for number, key in enumerate(("one", "two", "one", "running")):  # the third repeats the first
        proposes(plan, number, key)
    search, confirm = of(plan, "search"), of(plan, "confirm")
    assert (search.jobs, search.left) == (8, 5)
    assert search.each == Each(14 * TERA, 28.0)
    assert confirm.done == 1
    assert of(plan, "score", {"score": 5 * TERA}).each == Each(5 * TERA, 10.0)  # at the rate of the others
    assert "by the trials that have ended" in next(lines(plan))


@pytest.mark.parametrize(
    ("limits", "begun"),
    [
        ({"budget_pflop": 3.5}, 5),  # as many as tests/engine/test_optuna_search.py sees begin
        ({"budget_pflop": 3.5, "budget_hours": 0.1}, 3),
        ({"budget_hours": 0.001}, 2),
        ({"budget_pflop": 1e6}, 12),
        ({}, 12),
    ],
)
def test_a_budget_bounds_what_is_left_of_a_search(limits: dict[str, float], begun: int, plan: Plan) -> None:
    """Trials of one PFLOP and 200 seconds each: those that begin before their budget is known to be used up."""
    cost = Cost(base=0, learn=1, trial=200, report=1, attack=1)
    study = replace(plan.study, methods=("vkd",), trials=12, lookahead=2, cost=cost, **limits)  # type: ignore[arg-type]
    assert of(replace(plan, study=study), "search", {"search": PETA}).left == begun


def test_the_jobs_that_follow_a_search_are_those_that_its_budget_leaves(plan: Plan) -> None:
    whole = replace(plan.study, methods=("vkd",), forget_ratios=(10,), trials=12, race=4, robustness="relearning")
    few = replace(whole, budget_pflop=1.0, lookahead=2)
    for name in ("confirm", "attack"):
        found = [of(replace(plan, study=study), name, {"search": PETA}).jobs for study in (whole, few)]
        assert found[0] > found[1]


def test_minutes_are_those_of_the_hours_that_are_left(plan: Plan) -> None:
    """Side by side, with the seconds in which a study begins and ends; of a study that has finished none are told."""
    study = replace(plan.study, cost=Cost(base=600, learn=0, trial=300, report=0, attack=0), workers=3)
    timed = replace(plan, study=study)
    hours = math.fsum(stage.hours or 0.0 for stage in stages(timed, {}, ended(timed)))
    [told] = [line for line in lines(timed) if "minutes" in line]
    assert told == f"about {11 + 60 * hours / 3:.0f} minutes with 3 jobs at once"
    plan.root.mkdir(parents=True)
    settle(timed)
    inventory.take(plan.folder)
    assert not any("minutes" in line for line in lines(timed))


def test_minutes_say_what_they_leave_out(plan: Plan) -> None:
    """Nobody knows how long official scoring takes before the shapes of the base model are known."""
    cost = Cost(base=600, learn=0, trial=300, report=0, attack=0)
    asked = replace(plan, study=replace(plan.study, cost=cost, released=True))
    [told] = [line for line in lines(asked) if "minutes" in line]
    assert told.endswith(" at once, not counting official")


def test_the_note_for_others_says_by_what_time_is_told(plan: Plan) -> None:
    """Status then takes a job for as long as the plan does."""
    ends(plan, "one", seed=0, flops=10 * TERA, seconds=20.0)
    asked = replace(plan, study=replace(plan.study, released=True))
    asked.operations.update(score=5 * TERA, official=3 * TERA)
    note(asked)
    found = ended(asked)
    told = {line.stage: line.seconds for line in status.lines(read_record(PlanRecord, plan.folder.plan), found)}
    work = {stage.name: stage for stage in stages(asked, asked.operations, found)}
    assert told["official"] == work["official"].seconds == work["official"].left * 6.0
    first = read_record(PlanRecord, plan.folder.plan)
    ends(plan, "two", seed=0, flops=10 * TERA, seconds=60.0)  # this machine has become slower
    found = ended(asked)
    told = {line.stage: line.seconds for line in status.lines(first, found)}
    for name in ("search", "score", "official"):
        stage = next(stage for stage in stages(asked, asked.operations, found) if stage.name == name)
        assert told[name] == pytest.approx(stage.seconds), name


def test_attacks_are_counted_by_their_records(plan: Plan) -> None:
    ends(plan, "one", seed=0, flops=TERA, seconds=1.0)
    path = plan.folder.attack("one", "a").with_suffix(".json")
    path.parent.mkdir(parents=True)
    write_record(path, AttackRecord("relearning", {}, seconds=8.0, flops=3 * TERA, score_flops=TERA))
    write_record(path.with_name("b.json"), AttackRecord("relearning", {}, failed="needs strangers"))
    attack = of(plan, "attack")
    assert (attack.done, attack.each) == (2, Each(4 * TERA, 8.0))


def test_sequences_are_runs_outside_the_search(plan: Plan) -> None:
    ends(plan, "one", seed=0, flops=TERA, seconds=1.0)
    path = plan.folder.sequence("one", 3).with_suffix(".json")
    path.parent.mkdir(parents=True)
    write_record(path, SequenceRecord((), "", 1.0))
    assert of(plan, "confirm").done == 1


def test_nothing_is_left_of_a_study_that_has_finished(plan: Plan) -> None:
    """Fewer jobs may have been run than it asked for; with more trials, or what is tried again, there is work."""
    assert all(stage.left for stage in stages(plan, {}, ended(plan)))
    plan.root.mkdir(parents=True)
    settle(plan)
    inventory.take(plan.folder)
    assert [stage.left for stage in stages(plan, {}, ended(plan))] == [0] * 5
    assert [line.split()[1] for line in lines(plan)][2:8] == ["0"] * 6
    grown = replace(plan, study=replace(plan.study, trials=plan.study.trials + 1))
    assert of(grown, "search").left
    noted(plan.folder, "attack", {"probe on vkd": Failure("worker lost", "gone")})
    assert of(plan, "attack").left


def test_only_models_that_this_plan_teaches_are_taught(plan: Plan) -> None:
    (plan.folder.learned("another")).mkdir(parents=True)
    record = learned_record(plan.vanilla, Loading(), {}, seconds=5.0)
    write_record(plan.folder.learned_record("another"), record)
    assert of(plan, "learn").done == 0
    plan.folder.learned(plan.vanilla.key).mkdir()
    write_record(plan.folder.learned_record(plan.vanilla.key), record)
    assert (of(plan, "learn").done, of(plan, "learn").each.seconds) == (1, 5.0)


def test_what_follows_the_search_is_known_once_every_stage_is(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"learn": TERA, "search": TERA, "confirm": TERA, "score": TERA, "attack": TERA}
    monkeypatch.setattr(outlay, "calculated", lambda *_: known)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    later = outlay.ahead(plan, "search", 3)
    assert later() is None
    ends(plan, "one", seed=0, flops=TERA, seconds=6.0)
    assert later() is None  # it looks once a minute
    now[0] += EVERY
    jobs = sum(stage.left for stage in stages(plan, known, ended(plan))[2:])
    assert later() == pytest.approx(jobs * 6.0 / 3)
    plan.folder.record("one").write_text("{}")
    now[0] += EVERY
    assert later() is None  # a damaged record does not end what else is running


@pytest.mark.parametrize(("gpus", "told"), [(2.0, True), (0.0, False)])
def test_a_price_is_told_of_the_hours_of_gpus(plan: Plan, gpus: float, told: bool) -> None:
    cost = PRESETS["tiny"][1].cost
    priced = replace(plan, study=replace(plan.study, price_per_gpu_hour=3.0, gpus_per_trial=gpus, cost=cost))
    hours = sum(stage.hours or 0.0 for stage in stages(priced, {}, ended(priced)))
    assert any(line.endswith(f", {3 * hours:,.0f} at 3 an hour") for line in lines(priced)) == told


def test_without_a_measure_of_every_stage_no_price_is_told(plan: Plan) -> None:
    ends(plan, "one", seed=0, flops=TERA, seconds=3600.0)
    study = replace(plan.study, price_per_gpu_hour=3.0, gpus_per_trial=1)
    assert of(plan, "attack").hours is None
    assert "an hour" not in " ".join(lines(replace(plan, study=study)))
