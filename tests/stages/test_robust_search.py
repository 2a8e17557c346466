"""Robustness as a third objective: its value, the search that attacks every trial, and what the analysis tells."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from rich.console import Console

from analysis import trials as results
from analysis.sections import conclusion, fronts, other_attacks
from analysis.sections import search as search_section
from analysis.sections import winners as winners_section
from analysis.study_folder import read
from analysis.tables import Table
from study.attacks.relearning import Relearning
from study.contracts import Attack
from study.core.errors import Failed, Refused
from study.core.files import read_json, write_json
from study.core.hashing import content_key
from study.core.records import ModelKind
from study.core.rows import read_rows, write_rows
from study.engine.jobs import Job
from study.engine.optuna_search import Proposer
from study.experiment import attack as attacking
from study.experiment import checkpoints
from study.experiment import trial as trials
from study.experiment.context import StudyContext
from study.experiment.method_search import MethodSearch
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.methods.none import NoMethod
from study.metrics.objectives import DIRECTIONS, ROBUST_DIRECTIONS, costs, distance_to_ideal, front
from study.metrics.recovery import above_control, objective
from study.metrics.verdicts import tellable
from study.presets import PRESETS
from study.settings import Study
from study.stages import attack as attack_stage
from study.stages import learn as learn_stage
from study.stages import printed_plan as plans
from study.stages import search as search_stage
from study.stages.preflight import validate_study
from study.stages.race import race
from study.training.schedule import Schedule
from tests.helpers.in_process import run_here
from tests.helpers.page import page_of
from tests.helpers.planted import ATTACK, RELEARNING, Model, Planter
from tests.helpers.planted import Attack as Planted
from tests.helpers.rows import row
from tests.helpers.small import FewQuestions, propose
from tests.helpers.studies import Whole, searching

SMOKE = dataclasses.replace(PRESETS["smoke"][1], reference_seeds=1)
SHORT = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=3)
VANILLA = Learned("vanilla", "base", "benchmark", None, None, SHORT, ("projector", "llm"), 0)
REFERENCE = dataclasses.replace(VANILLA, kind="reference", goal="visual", ratio=10)
CHEAP = Relearning(people=0.5, score_at=(1,), schedule=SHORT)
share = st.floats(0, 1)


# ---- the objective ---------------------------------------------------------------------------------------------
def values(forgetting: float, utility: float, recovery: float) -> dict[str, float]:
    return {"forget_gap": forgetting, "utility": utility, "recovery": recovery}


def test_the_distance_has_a_third_term() -> None:
    """sqrt(.04 + .09 + .36) = .7; and the two default objectives are two."""
    assert distance_to_ideal(0.2, 0.7, 0.6) == pytest.approx(0.7)
    assert tuple(ROBUST_DIRECTIONS.items()) == (*DIRECTIONS.items(), ("recovery", "minimize"))
    assert costs(values(0.1, 0.75, 0.3)) == (0.1, 0.25, 0.3)
    assert costs({"forget_gap": 0.1, "utility": 0.75}) == (0.1, 0.25)


@given(share, share)
def test_without_the_third_objective_nothing_changes(forgetting: float, utility: float) -> None:
    """Bit for bit, or winners of older studies would move."""
    assert distance_to_ideal(forgetting, utility) == math.hypot(forgetting, 1.0 - utility)


def test_robustness_decides_between_winners() -> None:
    """By the first two objectives alone the one that hides is nearer."""
    both = {"hides": values(0.05, 0.95, 0.7), "holds": values(0.2, 0.8, 0.0)}
    two = {key: {name: v[name] for name in DIRECTIONS} for key, v in both.items()}
    assert distance_to_ideal(**both["holds"]) < distance_to_ideal(**both["hides"])
    assert distance_to_ideal(**two["hides"]) < distance_to_ideal(**two["holds"])
    assert front({**both, "worse": values(0.2, 0.8, 0.1)}) == ["hides", "holds"]


def attack_rows(before: float, after: float, kept: float = 1.0) -> pd.DataFrame:
    """Two steps of an attack: a held-out question, one that was given, and a retained person."""
    plain = row(modality="image_text", task="classification", half="select")
    lines = []
    for step, right, known in ((0, before, 1.0), (5, after, kept)):
        lines += [
            {**plain, "role": "forget", "held_out": "person", "step": step, "probability": right},
            {**plain, "role": "forget", "held_out": "", "step": step, "probability": float(step > 0)},
            {**plain, "role": "retain", "held_out": "person", "step": step, "probability": 1.0, "score": known},
        ]
    return pd.DataFrame(lines)


def test_recovery_is_the_gain_above_control_between_nothing_and_all() -> None:
    """.5 - .2 of one gain less the other; a newcomer that learns more is no merit of the model; never above 1."""

    def found(rows: pd.DataFrame, control: pd.DataFrame) -> float:
        return objective(rows, control, "select", utility=0.9, keeps=0.5)

    assert found(attack_rows(0.2, 0.7), attack_rows(0.1, 0.3)) == pytest.approx(0.3)
    assert found(attack_rows(0.1, 0.3), attack_rows(0.2, 0.7)) == 0.0
    assert found(attack_rows(0.0, 0.9), attack_rows(0.9, 0.1)) == 1.0


def test_a_ruin_is_not_robust() -> None:
    """Nothing comes back of it, which counts as though everything had."""
    nothing = attack_rows(0.2, 0.2)
    assert objective(nothing, nothing, "select", utility=0.5, keeps=0.5) == 0.0
    assert objective(nothing, nothing, "select", utility=0.49, keeps=0.5) == 1.0
    assert objective(attack_rows(0.2, 0.2, kept=0.5), nothing, "select", utility=1.0, keeps=0.5) == 0.0
    assert objective(attack_rows(0.2, 0.2, kept=0.4), nothing, "select", utility=1.0, keeps=0.5) == 1.0


def test_what_was_not_measured_is_not_nothing() -> None:
    """An attack that broke either of the two at once, or left no probabilities, gives no number."""
    whole = attack_rows(0.2, 0.2)
    at_once = whole[whole["step"] == 0]
    for one, other in ((at_once, whole), (whole, at_once), (whole.assign(probability=math.nan), whole)):
        assert math.isnan(objective(one, other, "select", utility=1.0, keeps=0.5))


# ---- the search ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudyContext:
    """A study that has learned its models, scored both yardsticks and attacked them as every trial will be."""
    root = tmp_path_factory.mktemp("study")
    context = StudyContext(root, FewQuestions(), tiny_folder)
    for learned in (VANILLA, REFERENCE):
        learn(context, learned)
    for yardstick in yardsticks():
        trials.run(context, yardstick, REFERENCE.key)
        attacking.attack_trial(context, yardstick, CHEAP, REFERENCE.key)
    return context


def yardsticks() -> tuple[Trial, Trial]:
    return Trial(VANILLA, NoMethod(), "visual", 10, 0), Trial(REFERENCE, NoMethod(), "visual", 10, 0)


@pytest.fixture
def search(world: StudyContext, tmp_path: Path) -> Iterator[MethodSearch]:
    """A search of three trials in a copy of that study."""
    shutil.copytree(world.root, tmp_path / "study")
    checkpoints.evict()
    yield MethodSearch(
        context=dataclasses.replace(world, root=tmp_path / "study"),
        defaults={"gradient_ascent": GradientAscent(schedule=SHORT)},
        trials=3, ratios=(10,), baselines={10: yardsticks()}, goal="visual", seed=0, lookahead=1, startup_trials=2,
        attacker=CHEAP, keeps=0.0,  # of few questions the attacked model may get none right
    )  # fmt: skip
    checkpoints.evict()


def jobs(search: MethodSearch, count: int = 3) -> list[Trial]:
    """The first proposals, each run if it is not on disk."""
    found = []
    for number in range(count):
        job = search.replay("gradient_ascent", propose(search, "gradient_ascent", number))
        if not search.is_done(job):
            search.execute(job, "gradient_ascent", number, 0.0)
        found.append(job)
    return found


def rows_of(search: MethodSearch, key: str) -> Path:
    return search.context.folder.attack(key, content_key(CHEAP))


@pytest.mark.slow
def test_every_trial_is_attacked_and_judged_by_three(search: MethodSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recovery is above that of the reference under the same attack; on disk, nothing is run again."""
    found = jobs(search)
    _, reference = yardsticks()
    control = read_rows(rows_of(search, reference.key))
    for job in found:
        outcome = search.outcome(job)
        assert outcome is not None
        assert tuple(outcome) == tuple(search.directions) == tuple(ROBUST_DIRECTIONS)
        gain = above_control([read_rows(rows_of(search, job.key))], [control], "select")
        assert outcome["recovery"] == (1.0 if outcome["utility"] < 0.5 else max(0.0, gain))
    told = Proposer(search).group("gradient_ascent", 3).study.trials[0]
    first = search.outcome(found[0])
    assert first is not None
    assert told.values == [first[name] for name in ROBUST_DIRECTIONS]
    monkeypatch.setattr(MethodSearch, "execute", lambda *_: pytest.fail("ran again"))
    assert search.missing() == 0
    assert jobs(search) == found


def test_a_trial_without_its_attack_is_attacked_and_not_run_again(
    search: MethodSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the study was killed between the two."""
    job, *_ = jobs(search, 1)
    before, was = search.outcome(job), read_rows(rows_of(search, job.key))
    rows_of(search, job.key).unlink()
    rows_of(search, job.key).with_suffix(".json").unlink()
    assert not search.is_done(job)
    assert search.outcome(job) is None
    assert search.missing() == 3
    monkeypatch.setattr(GradientAscent, "__call__", lambda *_: pytest.fail("unlearned again"))
    told = search.execute(job, "gradient_ascent", 0, 0.0)
    assert before is not None
    assert told == {"state": "complete", **before}
    pd.testing.assert_frame_equal(read_rows(rows_of(search, job.key)), was)
    assert search.missing() == 2


def test_without_an_attacker_there_are_two_objectives(search: MethodSearch) -> None:
    plain = dataclasses.replace(search, attacker=None)
    job, *_ = jobs(plain, 1)
    outcome = plain.outcome(job)
    assert outcome is not None
    assert tuple(outcome) == tuple(plain.directions) == tuple(DIRECTIONS)
    assert plain.is_done(job)
    assert not rows_of(search, job.key).exists()


def test_a_failed_attack_leaves_no_result_and_is_not_tried_again(
    search: MethodSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a recovery of nothing: the sampler is told that the trial failed."""

    def attack(context: StudyContext, trial: Trial, attacker: Attack, reference: str) -> None:
        raise Refused("no such layer")

    monkeypatch.setattr(attacking, "attack_trial", attack)
    [job] = jobs(search, 1)
    assert (
        search.execute(job, "gradient_ascent", 0, 0.0)["state"] == "complete"
    )  # it was noted: nothing is attacked again
    assert attacking.attack_state(search.context.folder, job, CHEAP) == "failed"
    assert read_json(search.context.folder.record(job.key))["state"] == "complete"
    assert search.is_done(job)
    assert search.outcome(job) is None
    assert Proposer(search).group("gradient_ascent", 1).study.trials[0].state == TrialState.FAIL
    assert search.outcomes("gradient_ascent") == {}


def test_an_attack_that_does_not_fit_does_not_lose_the_trial(search: MethodSearch) -> None:
    job = search.replay("gradient_ascent", propose(search, "gradient_ascent", 0))
    search.record_failure(job, "killed")
    assert read_json(search.context.folder.record(job.key))["state"] == "failed"
    assert search.is_done(job)
    other = search.replay("gradient_ascent", propose(search, "gradient_ascent", 1))
    trials.run(search.context, other, REFERENCE.key)
    search.record_failure(other, "killed")
    assert read_json(search.context.folder.record(other.key))["state"] == "complete"
    assert attacking.attack_state(search.context.folder, other, CHEAP) == "failed"
    assert search.is_done(other)


@pytest.mark.parametrize("spoilt", [{"held_out": ""}, {"probability": math.nan}])
def test_an_attack_that_says_nothing_is_no_result(search: MethodSearch, spoilt: dict[str, Any]) -> None:
    [job] = jobs(search, 1)
    path = rows_of(search, job.key)
    write_rows(path, read_rows(path).assign(**spoilt))
    assert search.is_done(job)
    assert search.outcome(job) is None


# ---- the stages ------------------------------------------------------------------------------------------------
OUTCOMES = {"hides": values(0.1, 0.9, 0.5), "holds": values(0.3, 0.9, 0.0), "worse": values(0.3, 0.9, 0.2)}


@dataclass(frozen=True)
class Ended:
    """A search that ended: what each of its trials came to."""

    judged: Mapping[Trial, Mapping[str, float]]
    defaults: tuple[str, ...] = ("gradient_ascent",)
    ratios: tuple[int, ...] = (10,)

    def outcomes(self, method: str) -> Mapping[Trial, Mapping[str, float]]:
        return self.judged

    def default(self, method: str, ratio: int) -> Trial:
        return of(99)  # which ended badly


def of(steps: int) -> Trial:
    schedule = dataclasses.replace(SHORT, steps=steps)
    return Trial(VANILLA, GradientAscent(schedule=schedule), "visual", 10, 0, "gradient_ascent")


def test_the_suite_runs_on_whole_fronts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generated: Path) -> None:
    """With robustness as an objective; without it the winner stands for its front."""
    hides, holds, worse = map(of, (1, 2, 3))
    ended: Any = Ended(dict(zip((hides, holds, worse), OUTCOMES.values(), strict=True)))
    asked: list[Job] = []

    def run_jobs(name: str, jobs: Sequence[Job], study: Study) -> dict[str, str]:
        asked.extend(jobs)
        return {}

    monkeypatch.setattr(attack_stage, "run_jobs", run_jobs)
    monkeypatch.setattr(attack_stage, "is_complete", lambda folder, trial: True)
    study = dataclasses.replace(SMOKE, study_dir=tmp_path, forget_ratios=(10,), confirm_seeds=0)
    plan = validate_study(dataclasses.replace(study, robustness="relearning"), generated)
    context = StudyContext(tmp_path, plan.source, tmp_path)
    ended_well = search_stage.judge(ended)
    winners = search_stage.choose_winners(plan, ended_well, race(plan, ended, ended_well))
    fronts_of = search_stage.choose_fronts(plan, ended_well)
    assert winners == [holds]
    assert set(fronts_of) == {hides, holds}
    assert attack_stage.attack_winners(plan, context, winners, fronts_of) == []
    assert [job.name.split(" on ")[1] for job in asked] == [
        "gradient_ascent 10 %", f"gradient_ascent 10 % {hides.key}", "vanilla 10 %", "reference 10 % seed 0",
    ]  # fmt: skip
    assert search_stage.choose_fronts(validate_study(study, generated), ended_well) == []


def test_a_method_of_which_every_trial_failed_has_neither_winner_nor_front(tmp_path: Path, generated: Path) -> None:
    nothing: Any = Ended({}, ratios=(10, 15))
    judged = search_stage.judge(nothing)
    assert judged == {("gradient_ascent", 10): {}, ("gradient_ascent", 15): {}}
    study = dataclasses.replace(SMOKE, study_dir=tmp_path, forget_ratios=(10, 15), robustness="relearning")
    plan = validate_study(study, generated)
    races = race(plan, nothing, judged)
    assert races == {}
    assert (search_stage.choose_winners(plan, judged, races), search_stage.choose_fronts(plan, judged)) == ([], [])
    assert read_json(plan.folder.winners) == {"gradient_ascent": {}}


def test_an_attack_that_breaks_the_reference_at_once_ends_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generated: Path
) -> None:
    study = dataclasses.replace(SMOKE, study_dir=tmp_path, forget_ratios=(10,), robustness="relearning")
    plan = validate_study(study, generated)
    attacker = study.search_attack()
    rows = attack_rows(0.2, 0.2)
    _, reference = plan.baselines(10)
    path = plan.folder.attack(reference.key, content_key(attacker))
    write_rows(path, rows)
    learn_stage._check_controls(plan, attacker)
    learn_stage._check_controls(plan, None)
    write_rows(path, rows[rows["step"] == 0])
    with pytest.raises(Failed, match="robustness='relearning': the reference at 10 % collapses"):
        learn_stage._check_controls(plan, attacker)


# ---- settings --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("relearn", "did you mean 'relearning'?"),
        ("swap_back/relearn", "did you mean 'relearning'?"),
        ("relearning:step=3", "did you mean 'steps'?"),
        ("relearning:people=1,facts=1", "at forget ratio 10: the attacker is given every fact"),
        ("relearning:data=names,people=1", ""),
        ("relearning:steps=1,people=0.5", ""),
    ],
)
def test_an_attack_that_cannot_be_an_objective_is_refused(
    asked: str, said: str, tmp_path: Path, generated: Path
) -> None:
    """Before any work, whether it is misspelt or leaves nothing to come back."""
    study = dataclasses.replace(SMOKE, study_dir=tmp_path, robustness=asked)
    if not said:
        validate_study(study.resolved(), generated)
        return
    with pytest.raises((Refused, ValueError), match=re.escape(said)):
        validate_study(study.resolved(), generated)


@pytest.mark.slow
def test_another_attack_is_another_study(tmp_path: Path, generated: Path) -> None:
    """In words, in what the preset's grid makes of them, and where there was none."""
    study = dataclasses.replace(SMOKE, study_dir=tmp_path, robustness="relearning")
    searching(study, generated)
    validate_study(study, generated)
    grid = {"relearning": ({"score_at": (1,), "schedule": SHORT},)}
    for changes, said in (
        (
            {"robustness": "relearning:people=0.4"},
            "robustness.attack: relearning on disk, relearning:people=0.4 requested",
        ),
        ({"robustness": ""}, "robustness.attack: relearning on disk, None requested"),
        ({"attack_grid": grid}, "robustness.key: "),
    ):
        changed: Any = changes
        with pytest.raises(Refused, match=re.escape(said)):
            validate_study(dataclasses.replace(study, **changed), generated)


def test_the_attack_is_the_presets_with_what_was_set() -> None:
    """A part of the suite if it is written like one, so that it is not run twice."""
    tiny = PRESETS["tiny"][1]
    first, *_ = tiny.attackers()
    assert dataclasses.replace(tiny, robustness="relearning").search_attack() == first
    cheap = dataclasses.replace(tiny, robustness="relearning:steps=10,people=0.5").search_attack()
    assert isinstance(cheap, Relearning)
    assert (cheap.schedule.steps, cheap.people) == (10, 0.5)
    assert tiny.search_attack() is None


@pytest.mark.slow
def test_the_plan_says_that_every_trial_is_attacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generated: Path
) -> None:
    """And counts it: 56 + 14 + 4 attacks and at most 49 more trials to be scored and attacked three times each."""
    whole = dataclasses.replace(PRESETS["tiny"][1], study_dir=tmp_path / "study")
    tiny = dataclasses.replace(whole, attacks=("relearning",), attack_trials=0)
    said = {}
    for asked in ("", "relearning:steps=10,people=0.5"):
        screen = io.StringIO()
        monkeypatch.setattr(plans, "console", Console(file=screen, width=300))
        plans.print_plan(validate_study(dataclasses.replace(tiny, robustness=asked), generated))
        said[asked] = " ".join(screen.getvalue().split())
    plain, robust = said.values()
    assert "each attacked with relearning:steps=10,people=0.5 (third objective: recovery)" in robust
    assert "as many on every other trial on a Pareto front, up to 49" in robust
    assert "third objective" not in plain
    assert "caution" not in plain
    assert "caution: no attack of another kind than relearning:steps=10,people=0.5 is planned" in robust
    most_told = tellable(12, 3, 3, winners=6, attacks=3)
    assert f"at 20 % a recovery of {most_told:.2f} by the worst of 3 attacks on all 12 forget people" in plain
    [before] = re.findall(r"about (\d+) minutes", plain)
    [(least, most)] = re.findall(r"about (\d+) to (\d+) minutes", robust)
    assert int(least) - int(before) == pytest.approx((48 + 12 + 4) * 2.5 / 2 / 60, abs=1)
    assert int(most) - int(least) == pytest.approx(49 * (3 + 3 * 2.5) / 2 / 60, abs=1)


# ---- the analysis ----------------------------------------------------------------------------------------------
MODELS = {
    "hides": Model(forget=0.32, test=0.32, back=0.9),
    "holds": Model(forget=0.5, test=0.5, back=0.5),
    "worse": Model(forget=0.5, test=0.5, back=0.9),
    "ruined": Model(forget=0.1, test=0.1, keep=0.1, back=0.1),
    "failed": Model(forget=0.4, test=0.4),
    "unfinished": Model(forget=0.4, test=0.4),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A study of one method whose trials are known by name; the suite holds the search's attack and a weaker one."""
    root = tmp_path_factory.mktemp("planted")
    planter = Planter(root)
    planter.study(["m"], [10], robustness={"attack": "relearning:steps=40", "key": ATTACK})
    planter.yardsticks(10)
    weaker = Planted("swap_back", {"parts": ["vision"]}, steps=(0, 1))
    keys = {}
    for number, (name, model) in enumerate(MODELS.items()):
        keys[name] = planter.trial("m", 10, model, report=name in ("hides", "holds"), number=float(number))
        planter.proposal("m", number, 10, keys[name])
        if name != "unfinished":
            planter.attack(keys[name], model, RELEARNING if name != "failed" else FAILED)
    for key in (keys["hides"], keys["holds"], *bars(root)):
        planter.attack(key, Model(), weaker)
    write_json(root / "winners.json", {"m": {"10": {"trials": [keys["holds"]]}}})
    return root, keys


YARDSTICKS: tuple[ModelKind, ...] = ("vanilla", "reference")
FAILED = dataclasses.replace(RELEARNING, failed="no such layer")


def bars(root: Path) -> list[str]:
    return [t.key for kind in YARDSTICKS for t in read(root).yardsticks(kind, 10)]


def test_the_trials_have_a_third_objective(planted: tuple[Path, dict[str, str]]) -> None:
    """Held-out answers went up by .58, by nothing and by .4, those of the control by nothing; a ruin counts as 1."""
    root, keys = planted
    found = results.trials(read(root)).set_index("key")
    mine = found.loc[list(keys.values())].set_axis(list(keys))
    recovery = mine["recovery"].dropna().to_dict()
    assert recovery == pytest.approx({"hides": 0.58, "holds": 0.0, "worse": 0.4, "ruined": 1.0})
    assert mine.loc["hides", "distance"] == pytest.approx(math.hypot(0.02, 0.58))
    assert mine.loc["worse", "distance"] == pytest.approx(math.hypot(0.2, 0.4))
    assert [name for name in keys if mine.loc[name, "front"]] == ["hides", "holds"]
    assert mine.loc["failed", "reason"] == "the search attack failed: no such layer"
    assert mine.loc["unfinished", "reason"] == "the search attack has not been run"
    assert mine.loc["failed", "forget_gap"] == pytest.approx(0.1)
    bar = found.loc[bars(root), "recovery"].tolist()
    assert bar == [0.0, 0.0]


def test_attacks_without_a_result_are_counted(planted: tuple[Path, dict[str, str]]) -> None:
    counts = results.counts(read(planted[0])).drop(columns=["method", "ratio"]).loc[0].to_dict()
    assert counts == {"proposals": 6, "complete": 4, "stopped": 0, "collapsed": 0, "diverged": 0, "failed": 0,
                      "unfinished": 1, "duplicate": 0,
                      "attack failed": 1}  # fmt: skip


def test_the_hypervolume_has_three_dimensions(planted: tuple[Path, dict[str, str]]) -> None:
    """`holds` (.2, 0, 0) dominates .8; `hides` (.02, 0, .58) adds .18 x 1 x .42; the others add nothing."""
    running = search_section.search_data(read(planted[0]))
    assert running["hypervolume"].tolist() == pytest.approx([0.98 * 0.42, *[0.8 + 0.18 * 0.42] * 5])


def test_whole_fronts_are_told_with_their_worst_attack(planted: tuple[Path, dict[str, str]]) -> None:
    root, keys = planted
    found = {line["key"]: line for line in fronts.table(read(root)).to_dict("records")}
    assert set(found) == {keys["hides"], keys["holds"]}
    hides, holds = found[keys["hides"]], found[keys["holds"]]
    assert (hides["verdict"], hides["attack"], hides["complete"]) == ("came back", ATTACK, 2)
    assert hides["above_control"] == pytest.approx(0.58)
    assert (holds["verdict"], holds["winner"], hides["winner"]) == ("equivalent to retraining", True, False)
    assert holds["report_distance"] == pytest.approx(0.2)


def test_attacks_of_other_kinds_stand_beside_the_optimized_one(planted: tuple[Path, dict[str, str]]) -> None:
    """Swap back takes vanilla, winner and control from .3 to .3 here: to that attack nobody ever knew more."""
    root, keys = planted
    warning, shown = other_attacks.parts(read(root))
    assert isinstance(warning, str)
    assert "chosen by how little relearning brought back" in warning
    assert "No attack of another kind" not in warning
    assert isinstance(shown, Table)
    [line] = shown.raw.to_dict("records")
    assert (line["key"], line["settings"], line["verdict"]) == (keys["holds"], "swap back", "not unlearned")
    assert [line["recovery"], line["above_control"]] == pytest.approx([0.0, 0.0])
    assert "hidden from it" not in " ".join(map(str, conclusion.parts(read(root))))


def test_without_another_kind_the_report_says_what_may_be_hidden(
    planted: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """The attack of the search with other settings is of the same kind."""
    root = Path(shutil.copytree(planted[0], tmp_path / "study"))
    for path in root.glob("trials/*/attacks/*.json"):
        if read_json(path)["attack"] == "swap_back":
            write_json(path, {**read_json(path), "attack": "relearning"})
    warning, shown = other_attacks.parts(read(root))
    assert isinstance(shown, Table)
    assert shown.raw.empty
    said = "No attack of another kind than relearning, which the search optimized, was run on the winners"
    assert said in str(warning)
    assert said in " ".join(map(str, conclusion.parts(read(root))))


@pytest.mark.slow
def test_the_report_says_what_the_third_objective_is(planted: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    root = shutil.copytree(planted[0], tmp_path / "study")
    page = page_of(root)
    assert "third objective of this study (lower is better): every trial was attacked with relearning:steps=40" in page
    assert "a recovery of 0.00 under the search attack" in page
    assert "Of the 2 trials on its front, 1 held under the worst attack of the suite." in page
    assert "Whole Pareto fronts under the fixed suite" in page
    assert "no such layer" in page
    winners = pd.read_csv(root / "report" / "tables" / "winners.csv")
    assert winners[["recovery", "select_recovery"]].to_numpy().tolist() == [[0.0, 0.0]]
    shown = pd.read_csv(root / "report" / "tables" / "figure_trade_off.csv")
    assert shown["recovery"].notna().sum() == 4 + 2
    figure = winners_section.draw_trade_off(shown, ["m"])
    ratios = shown["ratio"].nunique()
    titled = [axis.get_title() for axis in figure.axes]
    assert titled[:ratios] == [f"forget {ratio} %" for ratio in sorted(shown["ratio"].unique())]
    assert not any(titled[ratios:])  # once above each column
    assert [axis.get_xlabel() for axis in figure.axes] == list(winners_section.ACROSS.values())
    assert (root / "report" / "figures" / "trade_off.png").exists()


@pytest.mark.slow
def test_a_study_without_it_says_nothing_of_it(tmp_path: Path) -> None:
    planter = Planter(tmp_path)
    planter.study(["m"], [10])
    planter.yardsticks(10)
    key = planter.trial("m", 10, Model(), report=True)
    planter.proposal("m", 0, 10, key)
    planter.attack(key, Model(back=0.9))
    write_json(tmp_path / "winners.json", {"m": {"10": {"trials": [key]}}})
    page = page_of(tmp_path)
    study = read(tmp_path)
    assert "third objective of this study" not in page
    assert "Whole Pareto fronts" not in page
    assert "Optimizing an audit" not in page
    assert not [
        name for frame in (results.trials(study), results.winners(study)) for name in frame if "recovery" in str(name)
    ]
    assert fronts.table(study).empty


# ---- all of it -------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_robust_study_runs_to_its_report_and_again_runs_what_is_missing(whole: Whole, tmp_path: Path) -> None:
    """Every trial that ended well met the attack of the search, every trial on a front the whole suite as well."""
    folder = whole.begun(tmp_path / "study")
    asked = ("--robustness", "relearning:people=0.4", "--trials", "3", "--forget-ratios", "10", "--no-metric-check")
    assert "learn: done in" not in run_here(folder, *asked)
    study = read(folder)
    search = results.search_attack(study)
    done = results.trials(study).query("state == 'complete'")
    assert len(done) >= 6
    assert done["recovery"].notna().all()
    assert all(search in study.attacks(key) for key in done["key"])
    found = fronts.table(study)
    assert len(found) >= 2
    assert (found["attacks"] == 2).all()
    assert found["report_distance"].notna().all()
    before = {path: path.stat().st_mtime_ns for path in (folder / "trials").rglob("*") if path.is_file()}
    lost = next(iter(done.loc[done["number"].notna(), "key"]))
    path = folder / "trials" / lost / "attacks" / f"{search}.parquet"
    path.unlink()
    path.with_suffix(".json").unlink()
    printed = run_here(folder, *asked)
    assert "search: 1/1" in printed
    after = {path: path.stat().st_mtime_ns for path in (folder / "trials").rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert {path for path in before if after[path] != before[path]} == {path, path.with_suffix(".json")}
