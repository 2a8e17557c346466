"""A trial at its rungs: it is scored on a sample, may end, and is otherwise the same to the last bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from study.benchmarks.synthetic import Synthetic
from study.contracts import Method
from study.core.files import read_json
from study.core.records import RungScore, TrialRecord, read_record
from study.core.rows import read_rows
from study.core.sampling import spaced
from study.core.terms import Goal
from study.data.benchmark import Question
from study.evaluation.scoring import score
from study.experiment import checkpoints, rungs
from study.experiment import trial as trials
from study.experiment.context import StudyContext
from study.experiment.rungs import Ending, Rungs, rung_steps, sample
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.methods.none import NoMethod
from study.methods.prompting import Prompting
from study.metrics.objectives import forget_groups, objectives
from study.model.vlm import VLM
from study.training.schedule import Schedule

TAUGHT = Schedule(steps=3, learning_rate=1e-3, pictures=3, texts=2)
ASCENT = GradientAscent(schedule=Schedule(steps=3, learning_rate=1e-3, pictures=2, lessons_per_picture=3))
VANILLA = Learned("vanilla", "base", "benchmark", None, None, TAUGHT, ("projector", "llm"), 0)
REFERENCE = replace(VANILLA, kind="reference", goal="visual", ratio=10)
BASELINES = tuple(Trial(start, NoMethod(), "visual", 10, 0) for start in (VANILLA, REFERENCE))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[StudyContext]:
    """A study that has learned its models and scored its baselines."""
    root = tmp_path_factory.mktemp("study")
    context = StudyContext(root, Synthetic(people=20, celebrities=8, views=2, strangers=8), tiny_folder)
    checkpoints.evict()
    for learned in (VANILLA, REFERENCE):
        learn(context, learned)
    for baseline in BASELINES:
        trials.run(context, baseline, REFERENCE.key)
    yield context
    checkpoints.evict()


def run(context: StudyContext, method: Method, seed: int, watched: Rungs | None) -> tuple[Trial, TrialRecord]:
    asked = Trial(VANILLA, method, "visual", 10, seed)
    return asked, trials.run(context, asked, REFERENCE.key, rungs=watched)


def delta_of(context: StudyContext, asked: Trial) -> dict[str, torch.Tensor]:
    return load_file(context.folder.delta(asked.key))


def ends_at(rung: int) -> Any:
    """Whoever gets to a rung is stopped there."""
    return lambda found: Ending("stopped", f"rung {rung}") if found.rung == rung else None


def test_watching_changes_nothing(context: StudyContext) -> None:
    """The weights are the same to the last bit, and what the rungs computed is counted by itself."""
    asked, watched = run(context, ASCENT, 1, Rungs(BASELINES, lambda found: None))
    seen = delta_of(context, asked)
    context.folder.record(asked.key).unlink()
    curve = context.folder.trial_curve(asked.key)
    losses = read_json(curve)
    curve.unlink()
    _, alone = run(context, ASCENT, 1, None)
    unseen = delta_of(context, asked)
    assert len(losses) == ASCENT.schedule.steps
    assert losses == read_json(curve)
    assert seen.keys() == unseen.keys()
    assert all(torch.equal(seen[name], unseen[name]) for name in seen)
    assert [(found.rung, found.step) for found in watched.rungs] == [(1, 1), (2, 2)]
    assert alone.rungs == ()
    assert watched.cost["rung_flops"] > 0
    counts = ("unlearn_flops", "unlearn_images", "unlearn_prompt_tokens", "flops")
    assert [watched.cost[name] for name in counts] == [alone.cost[name] for name in counts]


def test_a_rung_is_scored_like_a_trial(context: StudyContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same objectives, with the baselines' rows on the same questions; and it is on disk."""
    seen: list[pd.DataFrame] = []

    def scored(vlm: VLM, questions: Sequence[Question], *, reply: bool) -> pd.DataFrame:
        seen.append(score(vlm, questions, reply=reply))
        return seen[-1]

    monkeypatch.setattr(rungs, "score", scored)
    asked, record = run(context, ASCENT, 2, Rungs(BASELINES, lambda found: None))
    ids = set(seen[0]["question"])
    before, wanted = (read_rows(context.folder.rows(t.key, "select")) for t in BASELINES)
    before, wanted = (rows[rows["question"].isin(ids)] for rows in (before, wanted))
    for found, rows in zip(record.rungs, seen, strict=True):
        assert found.objectives == objectives(rows, before, [wanted], "visual")
    assert read_record(TrialRecord, context.folder.record(asked.key)) == record


@pytest.mark.parametrize("rung", [1, 2])
def test_a_trial_may_end_at_a_rung(rung: int, context: StudyContext) -> None:
    """It leaves its record and its scores until then, no weights and no rows; its work is what it computed."""
    asked, record = run(context, ASCENT, 10 + rung, Rungs(BASELINES, ends_at(rung), ("stopped",)))
    assert (record.state, record.reason, len(record.rungs)) == ("stopped", f"rung {rung}", rung)
    assert len(read_json(context.folder.trial_curve(asked.key))) == record.rungs[-1].step
    assert not context.folder.delta(asked.key).exists()
    assert not context.folder.rows(asked.key, "select").exists()
    whole = run(context, ASCENT, 20, None)[1]
    assert record.cost["unlearn_flops"] == pytest.approx(whole.cost["unlearn_flops"] * rung / 3, rel=0.2)


def test_one_that_was_stopped_ends_as_if_it_had_not_been(context: StudyContext) -> None:
    """Where it may stop it is left alone; where it no longer may it is run to the end that it would have had."""
    stopping = Rungs(BASELINES, ends_at(1), ("stopped",))
    asked, stopped = run(context, ASCENT, 30, stopping)
    assert run(context, ASCENT, 30, stopping)[1] == stopped
    _, whole = run(context, ASCENT, 30, Rungs(BASELINES, lambda found: None, ("collapsed",)))
    assert (whole.state, len(whole.rungs)) == ("complete", 2)
    assert whole.rungs[0] == stopped.rungs[0]
    assert run(context, ASCENT, 30, stopping)[1] == whole
    late = delta_of(context, asked)
    context.folder.record(asked.key).unlink()
    run(context, ASCENT, 30, None)
    assert all(torch.equal(tensor, late[name]) for name, tensor in delta_of(context, asked).items())


def test_what_trains_nothing_has_no_rungs(context: StudyContext) -> None:
    def never(found: RungScore) -> Ending | None:
        raise AssertionError

    assert run(context, Prompting(), 0, Rungs(BASELINES, never))[1].rungs == ()
    short = replace(ASCENT, schedule=replace(ASCENT.schedule, steps=2))
    assert run(context, short, 0, Rungs(BASELINES, never))[1].rungs == ()


@pytest.mark.parametrize(("steps", "at"), [(1, []), (2, []), (3, [1, 2]), (4, [1, 3]), (60, [20, 40]), (100, [33, 67])])
def test_rungs_are_at_thirds(steps: int, at: list[int]) -> None:
    assert rung_steps(steps) == at


@pytest.mark.parametrize("goal", ["visual", "full"])
def test_the_sample_is_small_and_has_every_group(goal: Goal, context: StudyContext) -> None:
    """Of each group few people, more of those who are to be forgotten, with all questions about one picture."""
    asked = trials.validation_questions(context.benchmark.split(10).questions, goal)
    chosen = sample(asked, goal)
    groups = {(q.role, q.modality) for q in asked}
    assert len({q.id for q in chosen}) == len(chosen) < len(asked)
    for role, modality in groups:
        there, few = (
            {q.person: [p for p in some if (p.role, p.modality, p.person) == (role, modality, q.person)]
             for q in some if (q.role, q.modality) == (role, modality)} for some in (asked, chosen)
        )  # fmt: skip
        assert len(few) == min(8 if (role, modality) in forget_groups(goal) else 4, len(there))
        for person, questions in few.items():
            if modality == "text":
                assert questions == there[person][:2]
            else:
                [picture] = {q.picture for q in questions}
                assert questions == [q for q in there[person] if q.picture == picture]


@pytest.mark.parametrize("count", [1, 3, 8, 9, 100])
def test_people_are_evenly_spaced(count: int) -> None:
    people = [f"{i:03d}" for i in range(count)]
    found = spaced(people, 8)
    assert len(found) == len(set(found)) == min(8, count)
    gaps = {people.index(b) - people.index(a) for a, b in itertools.pairwise(found)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
