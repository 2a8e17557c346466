"""The attacker's search: what it optimizes, what it is bound by, and that a planted weakness is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from optuna.trial import BaseTrial

from study.attacks.chain import Chain
from study.attacks.relearning import Relearning
from study.attacks.swap_back import SwapBack
from study.benchmarks.synthetic import Synthetic
from study.contracts import Attack, Request, Stage
from study.core.errors import Refused
from study.core.hashing import content_key
from study.core.rows import write_rows
from study.data.benchmark import Question
from study.experiment import attack as trials
from study.experiment import attack_search
from study.experiment.attack import attack_failed, attack_state
from study.experiment.attack_search import AttackJob, AttackSearch
from study.experiment.context import StudyContext
from study.experiment.trial_spec import Learned, Trial
from study.methods.none import NoMethod
from study.methods.npo import NPO
from study.model.vlm import VLM
from study.training.schedule import Schedule
from tests.helpers.rows import row
from tests.helpers.small import propose

VANILLA = Learned("vanilla", "base", "benchmark", None, None, Schedule(), ("llm",), 0)
WINNER = Trial(VANILLA, NPO(), "visual", 15, 0)
CONTROL = Trial(replace(VANILLA, kind="reference", ratio=15), NoMethod(), "visual", 15, 0)


@dataclass(frozen=True)
class Force(Attack):
    """An attack of one number: the more force, the more comes back, and above .6 the model breaks."""

    force: float = 0.1

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        raise AssertionError("attacks are planted here")


class Space:
    """Its search space."""

    @staticmethod
    def space(trial: BaseTrial, default: Force) -> Force:
        return replace(default, force=trial.suggest_float("force", 0.0, 1.0))


def planted(force: float, target: Trial) -> pd.DataFrame:
    """Rows of an attack: the winner comes back with the force, the control gains half of it."""
    gain = force if target == WINNER else force / 2
    lines = []
    for half in ("select", "report"):
        for step, right in ((0, 0.1), (9, 0.1 + 0.8 * gain)):
            lines.append({"role": "forget", "held_out": "person", "step": step, "probability": right, "score": 0.0})
            kept = 1.0 if step == 0 or force <= 0.6 else 0.0
            lines.append({"role": "retain", "held_out": "person", "step": step, "probability": 1.0, "score": kept})
        lines[-4:] = [{**line, "half": half} for line in lines[-4:]]
    one = row(question="q", person="p", modality="image_text", task="classification")
    return pd.DataFrame([{**one, **line} for line in lines])


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AttackSearch:
    def attack(context: StudyContext, target: Trial, attacker: Attack, reference: str) -> None:
        assert isinstance(attacker, Force)
        assert reference == CONTROL.start.key
        if attacker.force < 0.02:
            raise Refused("too little force")
        write_rows(context.folder.attack(target.key, content_key(attacker)), planted(attacker.force, target))

    monkeypatch.setattr(trials, "attack_trial", attack)
    monkeypatch.setattr(attack_search, "search_space", lambda name: Space)
    context = StudyContext(tmp_path, Synthetic(), tmp_path)
    targets = {"force on npo 15 %": (WINNER, "force")}
    return AttackSearch(context, targets, {"force": Force()}, {15: CONTROL}, 16, 0, 1, "tpe", 4)


def run(search: AttackSearch) -> list[AttackJob]:
    [label] = search.labels
    jobs = []
    for number in range(search.trials):
        job = search.replay(label, propose(search, label, number))
        if not search.is_done(job):
            search.execute(job, label, number, 0.0)
        jobs.append(job)
    return jobs


@pytest.mark.slow
def test_the_first_attack_is_the_presets(search: AttackSearch) -> None:
    assert run(search)[0] == AttackJob(WINNER, Force())


def test_the_recovery_is_above_that_of_the_control(search: AttackSearch) -> None:
    job = AttackJob(WINNER, Force(0.5))
    assert search.outcome(job) is None
    told = search.execute(job, "force", 0, 0.0)
    assert told["recovery"] == pytest.approx(0.8 * 0.5 / 2)
    assert attack_state(search.context.folder, CONTROL, Force(0.5)) == "complete"


@pytest.mark.slow
def test_the_search_finds_the_worst_whatever_it_leaves(search: AttackSearch) -> None:
    """More force than .6 leaves little of the model, and still gets the facts out."""
    run(search)
    [label] = search.labels
    worst = search.worst(label)
    assert isinstance(worst, Force)
    tried = [job.attacker.force for job in search.outcomes(label) if isinstance(job.attacker, Force)]
    assert worst.force == max(tried) > 0.6


def test_an_attack_that_cannot_be_done_is_noted_and_not_tried_again(search: AttackSearch) -> None:
    job = AttackJob(WINNER, Force(0.01))
    assert search.execute(job, "force", 0, 0.0) == {"state": "failed: too little force"}
    assert search.is_done(job)
    assert search.outcome(job) is None
    attack_failed(search.context.folder, WINNER, Force(0.02), "the worker died")
    assert attack_state(search.context.folder, WINNER, Force(0.02)) == "failed"
    assert attack_state(search.context.folder, WINNER, Force(0.03)) == "unfinished"


def test_a_failure_on_the_control_alone_ends_the_attack_too(
    search: AttackSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noted where it happened: the winner's rows are there."""
    planted_attack: Any = trials.attack_trial

    def attack(context: StudyContext, target: Trial, attacker: Attack, reference: str) -> None:
        if target == CONTROL:
            raise Refused("the control has no such layer")
        planted_attack(context, target, attacker, reference)

    monkeypatch.setattr(trials, "attack_trial", attack)
    for job, fail in ((AttackJob(WINNER, Force(0.5)), True), (AttackJob(WINNER, Force(0.4)), False)):
        if fail:
            search.execute(job, "force", 0, 0.0)
        else:
            planted_attack(search.context, WINNER, job.attacker, CONTROL.start.key)
            search.record_failure(job, "the worker died")
        assert attack_state(search.context.folder, WINNER, job.attacker) == "complete"
        assert attack_state(search.context.folder, CONTROL, job.attacker) == "failed"
        assert search.is_done(job)
        assert search.outcome(job) is None


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", [{"held_out": ""}, {"probability": float("nan")}])
def test_an_attack_that_says_nothing_does_not_stop_the_search(
    search: AttackSearch, monkeypatch: pytest.MonkeyPatch, spoilt: dict[str, Any]
) -> None:
    """Everything was given away, or the attacked model says no numbers: later proposals take it as failed."""

    def attack(context: StudyContext, target: Trial, attacker: Attack, reference: str) -> None:
        write_rows(context.folder.attack(target.key, content_key(attacker)), planted(0.5, target).assign(**spoilt))

    monkeypatch.setattr(trials, "attack_trial", attack)
    jobs = run(search)
    assert all(search.is_done(job) and search.outcome(job) is None for job in jobs)
    assert search.worst(search.labels[0]) is None
    assert search.missing() == 0


def test_nothing_was_found_where_nothing_ran(search: AttackSearch) -> None:
    assert search.worst(search.labels[0]) is None
    assert search.missing() == search.trials


def test_composed_attacks_keep_what_is_set_of_each_link(tmp_path: Path) -> None:
    """The first proposal is where the preset starts; later ones move what was left open, and all replay from disk."""
    text = "swap_back:parts=projector/relearning:people=0.4,optimizer=sgd"
    default = Chain((SwapBack(("projector",)), Relearning(people=0.4, schedule=Schedule(optimizer="sgd"))))
    context = StudyContext(tmp_path, Synthetic(), tmp_path)
    search = AttackSearch(context, {"chain on npo": (WINNER, text)}, {text: default}, {15: CONTROL}, 6, 0, 6, "tpe", 4)
    for number in range(search.trials):
        propose(search, "chain on npo", number)
    chains = [search.replay("chain on npo", proposal).attacker for proposal in search.proposals("chain on npo")]
    assert chains[0] == default
    assert len(set(chains)) == search.trials
    for chain in chains:
        assert isinstance(chain, Chain)
        swap, relearning = chain.links
        assert isinstance(swap, SwapBack)
        assert isinstance(relearning, Relearning)
        assert (swap.parts, relearning.people, relearning.schedule.optimizer) == (("projector",), 0.4, "sgd")
    [asked] = {path.parent.name for path in search.context.folder.attack_proposals()}
    assert asked == "swap_back:parts=projector then relearning:people=0.4,optimizer=sgd"


def test_a_proposal_that_todays_space_cannot_make_is_named(search: AttackSearch) -> None:
    """A space that asks for more than it did: another version's study is not continued with made-up values."""
    [label] = search.labels
    proposal = propose(search, label, 0)
    with pytest.raises(ValueError, match=r"proposal 0 of force .* made by another version .*force.*Choose another"):
        search.replay(label, replace(proposal, params={}))
    with pytest.raises(ValueError, match=r"proposal 0 of force .* parameters now give trial .*, not .*Choose another"):
        search.replay(label, replace(proposal, params={"force": 0.9}))
