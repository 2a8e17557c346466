"""What is proposed, in which order, and that a search is the same however it was run. Ray is never started."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from study.attacks.relearning import Relearning
from study.benchmarks.synthetic import Synthetic
from study.contracts import Method
from study.core import records
from study.core.console import console
from study.core.failures import Failure
from study.core.files import read_json
from study.core.hashing import content_key
from study.core.layout import StudyFolder
from study.core.records import RungScore
from study.core.terms import SamplerName
from study.engine import tune_runner
from study.engine.optuna_search import Proposer
from study.engine.tune_runner import ProposalSearcher
from study.experiment import method_search
from study.experiment.budget import PETA, Budget
from study.experiment.context import StudyContext
from study.experiment.method_search import MethodSearch
from study.experiment.records import keep_record
from study.experiment.rungs import Ending
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.methods.none import NoMethod
from study.methods.npo import NPO
from study.methods.prompting import INSTRUCTIONS, Prompting
from study.methods.vkd import VKD
from study.presets import PRESETS
from study.stages.launch import run_search
from study.training.schedule import Schedule
from tests.helpers.small import propose

VANILLA = Learned("vanilla", "base", "benchmark", None, None, Schedule(), ("llm",), 0)
ENDED_BADLY: tuple[records.TrialState, ...] = ("diverged", "failed", "stopped")
DEFAULTS: dict[str, Method] = {"gradient_ascent": GradientAscent(schedule=Schedule(steps=30)), "npo": NPO()}


def baselines_of(ratio: int) -> tuple[Trial, Trial]:
    reference = replace(VANILLA, kind="reference", goal="visual", ratio=ratio)
    vanilla, control = (Trial(start, NoMethod(), "visual", ratio, 0) for start in (VANILLA, reference))
    return vanilla, control


def judged(context: StudyContext, trial: Trial, baselines: Sequence[Trial]) -> dict[str, float]:
    assert baselines == baselines_of(trial.ratio)
    drawn = random.Random(trial.key)
    return {"forget_gap": drawn.random(), "utility": drawn.random()}


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The objectives of a trial are a fixed function of its key."""

    monkeypatch.setattr(method_search, "judged", judged)


def search_in(root: Path, defaults: Mapping[str, Method] = DEFAULTS, **fields: Any) -> MethodSearch:
    settings: dict[str, Any] = {
        "trials": 8, "ratios": (10, 15), "baselines": {ratio: baselines_of(ratio) for ratio in (10, 15)},
        "goal": "visual", "seed": 0, "lookahead": 2, "sampler": "tpe", "startup_trials": 4,
    }  # fmt: skip
    return MethodSearch(context=StudyContext(root, Synthetic(), root), defaults=defaults, **{**settings, **fields})


def finish(
    search: MethodSearch, trial: Trial, state: records.TrialState = "complete", cost: Mapping[str, float] | None = None
) -> None:
    keep_record(search.context.folder, trial, state, "", cost=cost or {})


@dataclass
class Run:
    """A stand-in for Tune: some workers, and trials that end in an order of their own."""

    search: MethodSearch
    workers: int = 1
    order: random.Random = field(default_factory=lambda: random.Random(0))
    state: Callable[[Trial], records.TrialState | Failure] = lambda trial: "complete"
    started: list[Trial] = field(default_factory=list)
    cost: Mapping[str, float] = field(default_factory=dict)
    """Of every trial."""
    proposals: ProposalSearcher = field(init=False)
    """Of the last call."""
    seen: list[int] = field(default_factory=list)
    """How many trials of one method were running, whenever one was started."""

    def __call__(self, stop_after: int = 1000) -> Run:
        """Until nothing is left, or until so many trials ended: what runs then is lost, as when a study is killed."""
        proposals = self.proposals = ProposalSearcher(self.search)
        running: dict[str, Trial] = {}
        ended = 0
        while ended < stop_after:
            asked: Any = None
            while len(running) < self.workers:
                name = f"tune-{len(self.started)}"
                asked = proposals.suggest(name)
                if asked is None or asked == Searcher.FINISHED:
                    assert asked is None or not running  # Tune never asks again after FINISHED
                    break
                assert asked["job"].key not in {trial.key for trial in running.values()}
                running[name] = asked["job"]
                self.started.append(asked["job"])
                same = [t for t in running.values() if type(t.method) is type(asked["job"].method)]
                self.seen.append(len(same))
            if not running:
                assert asked == Searcher.FINISHED
                break
            name = self.order.choice(sorted(running))
            trial = running.pop(name)
            state = self.state(trial)
            if isinstance(state, Failure):
                told = {tune_runner.FAILURE: json.dumps(state.plain)}
                proposals.on_trial_complete(name, told, error=state.kind == "worker lost")
            else:
                finish(self.search, trial, state, self.cost)
                proposals.on_trial_complete(name, {})
            ended += 1
        return self


def written(search: MethodSearch) -> dict[str, list[records.MethodProposal]]:
    return {method: search.proposals(method) for method in search.defaults}


# ---- what is proposed ------------------------------------------------------------------------------------------
def test_the_first_proposal_of_each_ratio_is_the_default(tmp_path: Path) -> None:
    """And no other is marked as one; ratios take turns."""
    search = Run(search_in(tmp_path))().search
    for method, default in DEFAULTS.items():
        proposals = search.proposals(method)
        assert [proposal.ratio for proposal in proposals] == [10, 15] * 4
        assert [proposal.number for proposal in proposals] == list(range(8))
        assert [proposal.default for proposal in proposals] == [True] * 2 + [False] * 6
        trials = [search.job(method, proposal.params) for proposal in proposals]
        assert [trial.method for trial in trials[:2]] == [default, default]
        assert all(trial.method != default for trial in trials[2:])
        assert [trial.key for trial in trials] == [proposal.trial for proposal in proposals]
        assert [trial.ratio for trial in trials] == [10, 15] * 4
        assert len({trial.key for trial in trials}) == 8


@pytest.mark.parametrize("name", ["vkd", "prompting"])
def test_choices_by_name_can_be_searched_too(name: str, tmp_path: Path) -> None:
    defaults: dict[str, Method] = {"vkd": VKD()} if name == "vkd" else {"prompting": Prompting()}
    search = Run(search_in(tmp_path, defaults, trials=6))().search
    assert search.job(name, search.proposals(name)[0].params).method == defaults[name]
    assert search.missing() == 0


def test_a_trial_is_all_that_its_result_depends_on(tmp_path: Path) -> None:
    search = search_in(tmp_path, goal="full", seed=5)
    proposal = propose(search, "npo", 0)
    assert search.job("npo", proposal.params) == Trial(VANILLA, NPO(), "full", 10, 5)


def test_the_seed_of_the_study_is_that_of_the_search(tmp_path: Path) -> None:
    """And methods, like numbers, draw apart: nobody repeats another's numbers."""
    drawn = set()
    for seed in range(3):
        search = Run(search_in(tmp_path / str(seed), seed=seed))().search
        for method in DEFAULTS:
            drawn |= {proposal.params["learning_rate"] for proposal in search.proposals(method)[2:]}
    assert len(drawn) == 3 * 2 * 6


def test_the_results_lead_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the random trials, what is proposed depends on what was found, not before."""

    def like(rate: float) -> Callable[..., dict[str, float]]:
        def judged(context: StudyContext, trial: Trial, baselines: Sequence[Trial]) -> dict[str, float]:
            assert isinstance(trial.method, GradientAscent)
            return {"forget_gap": abs(trial.method.schedule.learning_rate - rate) / rate, "utility": 0.5}

        return judged

    found = []
    for place, rate in enumerate((5e-6, 8e-5)):
        monkeypatch.setattr(method_search, "judged", like(rate))
        search = search_in(tmp_path / str(place), {"gradient_ascent": GradientAscent()}, trials=24)
        proposals = Run(search)().search.proposals("gradient_ascent")
        found.append([proposal.params["learning_rate"] for proposal in proposals])
    assert found[0][:8] == found[1][:8]  # of two ratios with four startup trials each
    assert found[0][10:] != found[1][10:]
    low, high = (sorted(rates[12:])[len(rates[12:]) // 2] for rates in found)
    assert low < 2e-5 < high


def test_earlier_trials_are_told_as_they_ended(tmp_path: Path) -> None:
    """Complete with the objectives in order, failed if it did not end well, running if it is not to be known yet."""
    search = search_in(tmp_path, ratios=(10,))
    trial = search.job("npo", propose(search, "npo", 0).params)

    def told(number: int = 2) -> Any:
        return Proposer(search).group("npo", number).study.trials[0]

    propose(search, "npo", 1)
    assert told().state == TrialState.FAIL
    for state in ENDED_BADLY:
        finish(search, trial, state)
        assert told().state == TrialState.FAIL
        assert told().values is None
    finish(search, trial)
    assert told(1).state == TrialState.RUNNING
    values = judged(search.context, trial, search.baselines[10])
    assert told().state == TrialState.COMPLETE
    assert told().values == [values["forget_gap"], values["utility"]]
    assert told().constraints == {"demand": search.floor - values["utility"]}
    assert told().params == propose(search, "npo", 0).params


def test_one_that_collapsed_is_told_as_infeasible(tmp_path: Path) -> None:
    """With what it had at its last rung, so that a model learns where collapse begins."""
    search = search_in(tmp_path, ratios=(10,))
    trial = search.job("npo", propose(search, "npo", 0).params)
    scores = (RungScore(1, 10, 0.3, 0.6), RungScore(2, 20, 0.1, 0.4))
    keep_record(search.context.folder, trial, "collapsed", "", cost={}, rungs=scores)
    propose(search, "npo", 1)
    told = Proposer(search).group("npo", 2).study.trials[0]
    assert (told.state, told.values) == (TrialState.COMPLETE, [0.1, 0.4])
    assert told.constraints["demand"] == pytest.approx(0.1)
    assert search.outcome(trial) is None


def test_ratios_are_modelled_apart(tmp_path: Path) -> None:
    search = Run(search_in(tmp_path))().search
    for number in (6, 7):
        trials = Proposer(search).group("npo", number).study.trials
        assert [trial.params["forget_ratio"] for trial in trials] == [(10, 15)[number % 2]] * 3


# ---- the same search, however it is run -----------------------------------------------------------------------
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_workers_and_order_do_not_matter(workers: int, seed: int, tmp_path: Path) -> None:
    alone = Run(search_in(tmp_path / "alone"))()
    other = Run(search_in(tmp_path / "other"), workers, random.Random(seed))()
    assert written(other.search) == written(alone.search)
    assert {trial.key for trial in other.started} == {trial.key for trial in alone.started}
    assert len(other.started) == 16


@pytest.mark.parametrize("kills", [[1], [3, 2], [1, 1, 1, 1, 1, 1]])
def test_being_killed_does_not_matter(kills: list[int], tmp_path: Path) -> None:
    """What ran when it was killed is run again, what had ended is not."""
    whole = Run(search_in(tmp_path / "whole"))()
    search = search_in(tmp_path / "killed")
    done = 0
    for number, after in enumerate(kills):
        Run(search, 2, random.Random(number))(stop_after=after)
        done += after
        assert search.missing() == 16 - done
    last = Run(search, 2)()
    assert len(last.started) == 16 - done
    assert written(search) == written(whole.search)
    assert Run(search)().started == []


@pytest.mark.parametrize("lookahead", [1, 2, 3])
def test_no_more_proposals_are_open_than_the_lookahead(lookahead: int, tmp_path: Path) -> None:
    """However many workers wait; and so many are."""
    run = Run(search_in(tmp_path, lookahead=lookahead), workers=12)()
    assert max(run.seen) == lookahead
    assert len(run.started) == 16


def test_a_proposal_waits_for_those_it_is_drawn_from(tmp_path: Path) -> None:
    search = search_in(tmp_path, {"npo": NPO()})
    proposals = ProposalSearcher(search)
    first, second = proposals.suggest("a"), proposals.suggest("b")
    assert (first["job"].ratio, second["job"].ratio) == (10, 15)
    assert first["label"] == "npo 1 of 8, ratio 10 %"
    assert proposals.suggest("c") is None
    finish(search, second["job"])
    assert proposals.suggest("c") is None  # the third is drawn from the first, whatever became of the second
    finish(search, first["job"])
    assert proposals.suggest("c")["label"] == "npo 3 of 8, ratio 10 %"
    assert proposals.suggest("d")["label"] == "npo 4 of 8, ratio 15 %"
    assert proposals.suggest("e") is None


def test_what_waits_is_looked_for_on_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many proposals of a method wait: for the first that has not ended, and never again for one that has."""
    search = search_in(tmp_path, {"npo": NPO()}, trials=40)
    proposals, looked = ProposalSearcher(search), list[int]()
    given = [proposals.suggest("a"), proposals.suggest("b")]

    def is_done(self: MethodSearch, job: Trial) -> bool:
        looked.extend(proposal.number for proposal in self.proposals("npo") if proposal.trial == job.key)
        return ended(self, job)

    ended = MethodSearch.is_done
    monkeypatch.setattr(MethodSearch, "is_done", is_done)
    assert proposals.suggest("c") is None
    assert looked.count(0) == 1
    for asked in given:
        finish(search, asked["job"])
    assert [bool(proposals.suggest(name)) for name in "cde"] == [True, True, False]
    looked.clear()
    assert proposals.suggest("e") is None
    assert looked == [2]


def test_methods_take_turns(tmp_path: Path) -> None:
    proposals = ProposalSearcher(search_in(tmp_path))
    labels = [proposals.suggest(str(i))["label"].split(",")[0] for i in range(4)]
    assert labels == [f"{method} {number} of 8" for number in (1, 2) for method in DEFAULTS]


def test_more_trials_add_only_the_difference(tmp_path: Path) -> None:
    short = Run(search_in(tmp_path, trials=4))()
    assert len(short.started) == 8
    longer = Run(search_in(tmp_path, trials=6))()
    assert len(longer.started) == 4
    assert not {trial.key for trial in longer.started} & {trial.key for trial in short.started}
    whole = Run(search_in(tmp_path / "whole", trials=6))()
    assert written(longer.search) == written(whole.search)
    fewer = search_in(tmp_path, trials=3)
    assert Run(fewer)().started == []
    assert len(fewer.outcomes("npo")) == 3


def test_another_method_adds_only_its_own(tmp_path: Path) -> None:
    Run(search_in(tmp_path, {"npo": NPO()}))()
    assert {type(trial.method) for trial in Run(search_in(tmp_path))().started} == {GradientAscent}


# ---- trials that end otherwise ---------------------------------------------------------------------------------
@pytest.mark.parametrize("state", ["failed", "diverged"])
def test_trials_that_ended_badly_are_not_run_again(state: records.TrialState, tmp_path: Path) -> None:
    """They count as tried and never as judged."""
    run = Run(search_in(tmp_path), state=lambda trial: state if trial.ratio == 15 else "complete")()
    assert len(run.started) == 16
    assert run.search.missing() == 0
    assert {trial.ratio for trial in run.search.outcomes("npo")} == {10}
    assert len(run.search.outcomes("npo")) == 4
    assert Run(run.search)().started == []


def test_a_search_of_which_everything_fails_ends(tmp_path: Path) -> None:
    run = Run(search_in(tmp_path), state=lambda trial: "failed")()
    assert run.search.outcomes("npo") == {}
    assert len(run.started) == 16


BUG, LOST = Failure("bug", "KeyError: 'a'"), Failure("worker lost", "gone")
TOO_LARGE, FULL = Failure("out of memory (device)", "too large", smallest=True), Failure("disk full", "no room")
SHORT = Failure("out of memory (device)", "short for now")


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("failure", [BUG, LOST])
def test_a_trial_that_met_an_accident_is_open_and_the_search_goes_on_as_if_it_had_not(
    workers: int, failure: Failure, tmp_path: Path
) -> None:
    """The sampler never hears of it, and what depends on its result waits for the next run."""
    struck: list[Trial] = []

    def state(trial: Trial) -> records.TrialState | Failure:
        if trial.name == "npo" and trial.ratio == 15 and trial in (struck or [trial]):
            struck.append(trial)
            return failure
        return "complete"

    search = search_in(tmp_path / "struck")
    run = Run(search, workers, state=state)()
    assert len(set(struck)) == 1
    assert len(struck) == (1 if failure == BUG else 2)  # a job whose worker is lost is given to another, once
    assert run.proposals.open == {struck[0].key: ("npo 2 of 8, ratio 15 %", ANY)}
    assert search.missing() == 16 - len(search.ended("npo")) - len(search.ended("gradient_ascent"))
    assert len(search.ended("gradient_ascent")) == 8
    assert not search.context.folder.record(struck[0].key).exists()
    again = Run(search, workers)()
    assert again.proposals.open == {}
    assert written(search) == written(Run(search_in(tmp_path / "whole"))().search)


@pytest.mark.parametrize(("failure", "tried"), [(BUG, 3), (FULL, 1), (LOST, 6)])
def test_what_fails_every_time_ends_the_search_after_a_few_trials(failure: Failure, tried: int, tmp_path: Path) -> None:
    run = Run(search_in(tmp_path, lookahead=8), state=lambda trial: failure)()
    assert len(run.started) == tried
    assert len(run.proposals.open) == (1 if failure == FULL else 3)
    assert not run.search.context.folder.trial_records()


def test_a_trial_that_is_too_large_for_the_device_has_ended(tmp_path: Path) -> None:
    """Another worker tries it once; then the search goes on without it, and says so in the record."""
    run = Run(search_in(tmp_path), state=lambda trial: TOO_LARGE if trial.ratio == 15 else "complete")()
    assert len(run.started) == 16 + 8
    assert run.proposals.open == {}
    assert run.search.missing() == 0
    found = [records.read_record(records.TrialRecord, path) for path in run.search.context.folder.trial_records()]
    ended = {(record.ratio, record.state, record.failure, record.reason) for record in found}
    assert ended == {(10, "complete", "", ""), (15, "failed", "out of memory (device)", "too large")}


@pytest.mark.parametrize(
    ("met", "whole", "state"),
    [
        ([TOO_LARGE, TOO_LARGE], True, "failed"),
        ([LOST, TOO_LARGE, TOO_LARGE], True, "failed"),
        ([LOST, TOO_LARGE], True, "again"),
        ([TOO_LARGE, LOST], True, "again"),
        ([TOO_LARGE, TOO_LARGE], False, "open"),
        ([SHORT, SHORT], True, "open"),
        ([LOST, LOST], True, "open"),
    ],
)
def test_a_device_is_too_small_only_if_the_smallest_pieces_fill_all_of_it_twice(
    met: list[Failure], whole: bool, state: str, tmp_path: Path
) -> None:
    """A worker that was lost before counts for itself, and what shares a device may fit once the other has gone."""
    search = search_in(tmp_path, {"prompting": Prompting()}, trials=1, ratios=(10,))
    proposals = ProposalSearcher(search, whole=whole)
    for number, failure in enumerate(met):
        job = proposals.suggest(str(number))["job"]
        told = {tune_runner.FAILURE: json.dumps(failure.plain)}
        proposals.on_trial_complete(str(number), told, error=failure == LOST)
    recorded, is_open = search.context.folder.record(job.key).exists(), job.key in proposals.open
    assert (recorded, is_open) == (state == "failed", state == "open")
    assert (proposals.suggest("last") == Searcher.FINISHED) == (state != "again") == proposals.finished


def test_a_job_that_met_a_worker_with_threads_of_an_earlier_one_keeps_its_second_chance(tmp_path: Path) -> None:
    search = search_in(tmp_path, {"prompting": Prompting()}, trials=2, ratios=(10,))
    proposals = ProposalSearcher(search)
    first = proposals.suggest("a")["job"]
    finish(search, first)
    proposals.on_trial_complete("a", {tune_runner.SPOILT: True})
    for name in ("b", "c", "d"):
        second = proposals.suggest(name)["job"]
        assert second.key != first.key
        assert not proposals.open
        proposals.on_trial_complete(name, error=True)
    assert [*proposals.open] == [second.key]


def test_equal_proposals_run_once(tmp_path: Path) -> None:
    """Prompting has eight settings: among many proposals most were met before."""
    for workers in (1, 4):
        run = Run(search_in(tmp_path / str(workers), {"prompting": Prompting()}, trials=40, lookahead=4), workers)()
        keys = [trial.key for trial in run.started]
        assert len(keys) == len(set(keys)) <= 2 * 2 * len(INSTRUCTIONS)
        assert len(run.search.proposals("prompting")) == 40
        assert run.search.missing() == 0
        assert set(run.search.outcomes("prompting")) == set(run.started)


def test_an_equal_proposal_does_not_run_beside_the_first(tmp_path: Path) -> None:
    """While the first still runs there is no record of it yet."""
    search = search_in(tmp_path, {"prompting": Prompting()}, trials=2, ratios=(10,))
    first = propose(search, "prompting", 0)
    records.write_record(search.context.folder.proposal("prompting", 1), replace(first, number=1))
    proposals = ProposalSearcher(search)
    given = proposals.suggest("a")
    assert given["job"].key == first.trial
    assert proposals.suggest("b") is None  # Tune never asks again after FINISHED, and "a" may die and be given again
    finish(search, given["job"], "complete")
    proposals.on_trial_complete("a", {})
    assert proposals.suggest("b") == Searcher.FINISHED


def test_a_last_job_whose_worker_dies_is_given_again(tmp_path: Path) -> None:
    proposals = ProposalSearcher(search_in(tmp_path, {"prompting": Prompting()}, trials=1, ratios=(10,)))
    first = proposals.suggest("a")
    assert proposals.suggest("b") is None
    proposals.on_trial_complete("a", error=True)
    assert proposals.suggest("b")["job"].key == first["job"].key
    proposals.on_trial_complete("b", error=True)
    assert proposals.suggest("c") == Searcher.FINISHED
    assert {key: failure.kind for key, (_, failure) in proposals.open.items()} == {first["job"].key: "worker lost"}
    assert proposals.search.missing() == 1


def test_nothing_is_left_when_everything_is_there(tmp_path: Path) -> None:
    search = Run(search_in(tmp_path))().search
    assert ProposalSearcher(search).suggest("a") == Searcher.FINISHED
    assert search.missing() == 0


def test_a_proposal_is_written_before_it_runs(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    asked = ProposalSearcher(search).suggest("a")
    path = search.context.folder.proposal("gradient_ascent", 0)
    assert read_json(path)["trial"] == asked["job"].key == content_key(asked["job"])
    assert propose(replace(search, seed=99), "gradient_ascent", 0) == records.read_record(records.MethodProposal, path)


# ---- samplers, budgets, early endings ------------------------------------------------------------------------------
@pytest.mark.parametrize("sampler", ["auto", "sobol", pytest.param("gp", marks=pytest.mark.slow), "nsga2", "random"])
def test_whatever_draws_a_search_is_the_same(sampler: SamplerName, tmp_path: Path) -> None:
    """With one worker or three, in whatever order trials end, killed or not."""
    asked: dict[str, Any] = {"sampler": sampler, "startup_trials": 3, "trials": 7, "ratios": (10,)}
    defaults: dict[str, Method] = {"npo": NPO()}
    alone = Run(search_in(tmp_path / "alone", defaults, **asked))()
    other = search_in(tmp_path / "other", defaults, **asked)
    for number in range(3):
        Run(other, 3, random.Random(number))(stop_after=3)
    Run(other, 3)()
    assert written(other) == written(alone.search)


def test_quasi_random_proposals_are_one_sequence_of_a_ratio(tmp_path: Path) -> None:
    """However ratios alternate: no point of it is left out, and given proposals use none."""
    one = Run(search_in(tmp_path / "one", {"npo": NPO()}, sampler="sobol", ratios=(10,), trials=5))().search
    two = Run(search_in(tmp_path / "two", {"npo": NPO()}, sampler="sobol", trials=10))().search
    mine = [proposal.params for proposal in two.proposals("npo") if proposal.ratio == 10]
    assert mine == [proposal.params for proposal in one.proposals("npo")]


@pytest.mark.parametrize(("pflop", "begun"), [(0.0, 8), (3.5, 5), (1.0, 2), (100.0, 8)])
def test_a_budget_of_work_ends_the_search_of_a_method(pflop: float, begun: int, tmp_path: Path) -> None:
    """Trials of one PFLOP each: none begins once what it may know of has used up the budget; one worker or three."""
    written_by = []
    for workers in (1, 3):
        search = search_in(tmp_path / str(workers), {"npo": NPO()}, budget=Budget(pflop=pflop))
        run = Run(search, workers)
        run.cost = {"unlearn_flops": 0.7 * PETA, "flops": 0.2 * PETA, "rung_flops": 0.1 * PETA}
        run()
        assert len(run.started) == begun
        assert search.missing() == 0
        assert Run(search)().started == []
        written_by.append(written(search))
    assert written_by[0] == written_by[1]


def test_a_budget_of_time_counts_what_workers_did(tmp_path: Path) -> None:
    search = search_in(tmp_path, {"npo": NPO()}, budget=Budget(hours=1.0))
    run = Run(search)
    run.cost = {"unlearn_seconds": 1000.0, "score_seconds": 900.0, "overhead_seconds": 9e9}
    assert len(run().started) == 3  # the third begins before the second is known


@pytest.mark.parametrize("left", [3.5, 1000.0])
def test_the_progress_of_a_search_ends_at_its_total(
    left: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a budget leaves out, before this run or in it, and however many trials repeat others."""
    search = search_in(tmp_path, {"prompting": Prompting(), "npo": NPO()}, trials=12, budget=Budget(pflop=3.5))
    done = Run(replace(search, defaults={"npo": NPO()}), cost={"unlearn_flops": PETA})()
    assert len(done.started) == 5 < search.trials
    search = replace(search, budget=Budget(pflop=left))

    def tune(search: MethodSearch, *, tell: Callable[[str, float], None], **_: Any) -> dict[str, Failure]:
        for trial in Run(search, cost={"unlearn_flops": PETA})().started:
            tell(trial.name, 1)
        return {}

    monkeypatch.setattr("study.engine.tune_runner.tune_search", tune)
    monkeypatch.setattr("study.engine.cluster.start", lambda: None)
    plan: Any = SimpleNamespace(study=PRESETS["smoke"][1], folder=StudyFolder(tmp_path))
    with console.capture() as printed:
        run_search("trials", plan, search)
    shown = re.findall(r"trials: (\d+)/(\d+) ", printed.get())
    assert [int(done) for done, _ in shown] == sorted(int(done) for done, _ in shown)
    assert shown[-1][0] == shown[-1][1]
    assert {int(total) for _, total in shown} == {12 if left == 3.5 else 12 + 7}


def test_a_job_that_is_given_to_another_worker_counts_once(tmp_path: Path) -> None:
    proposals = ProposalSearcher(search_in(tmp_path, {"prompting": Prompting()}, trials=1, ratios=(10,)))
    told: list[tuple[str, float]] = []
    shown = tune_runner._Shown(proposals, lambda text, jobs: told.append((text, jobs)))
    for name in ("a", "b"):
        tune_trial = SimpleNamespace(trial_id=name, config=proposals.suggest(name), last_result={})
        proposals.on_trial_complete(name, error=True)
        shown.on_trial_error(0, [], tune_trial)
    assert told == [("prompting 1 of 1, ratio 10 %: failed, run again", 0), ("prompting 1 of 1, ratio 10 %: failed", 1)]


def climbed(search: MethodSearch, number: int, gap: float, utility: float) -> Ending | None:
    """What happens to a proposal at its first rung, which it is recorded to have passed."""
    trial = search.job("npo", propose(search, "npo", number).params)
    watched = search._rungs(trial, "npo", number)
    assert watched is not None
    score = RungScore(1, 10, gap, utility)
    found = watched.decide(score)
    keep_record(search.context.folder, trial, found.state if found else "complete", "", cost={}, rungs=(score,))
    return found


def test_a_trial_that_collapses_or_is_behind_ends_at_a_rung(tmp_path: Path) -> None:
    """The default is never ended, and what a trial is compared with are those that it may know of."""
    search = search_in(tmp_path, {"npo": NPO()}, ratios=(10,), lookahead=1, trials=9)
    assert climbed(search, 0, 0.9, 0.1) is None
    ended = climbed(search, 1, 0.2, 0.4)
    assert ended is not None
    assert ended.state == "collapsed"
    assert climbed(search, 2, 0.9, 0.9) is None  # of few nobody is stopped
    assert climbed(search, 3, 0.1, 0.95) is None
    behind = climbed(search, 4, 0.8, 0.85)
    assert behind is not None
    assert behind.state == "stopped"
    assert climbed(search, 5, 0.05, 0.95) is None


def test_what_may_end_a_trial_is_a_setting(tmp_path: Path) -> None:
    search = search_in(tmp_path, {"npo": NPO()}, ratios=(10,), lookahead=1)
    for number, gap in enumerate((0.1, 0.1, 0.1, 0.1)):
        climbed(search, number, gap, 0.95)
    ended = climbed(search, 4, 0.8, 0.85)
    trial = search.job("npo", propose(search, "npo", 4).params)
    assert ended is not None
    assert search.is_done(trial)
    for stopping in ("collapse", "off"):
        other = replace(search, early_stopping=stopping)
        assert not other.is_done(trial)  # it is to be run to its end
    assert replace(search, early_stopping="off")._rungs(trial, "npo", 4) is None
    robust = replace(search, attacker=Relearning())
    watched = robust._rungs(trial, "npo", 4)
    assert watched is not None
    assert watched.ends == ("collapsed",)  # what an attack brings back is not known at a rung
