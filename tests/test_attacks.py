"""Every attack keeps the contract, and relearning is handed what it says and nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from study.attacks.relearning import Relearning
from study.contracts import Request, Stage
from study.plugins import find, known, name_of
from study.questions import Benchmark, Goal, Lesson, Question, Split, facts
from study.scoring import score
from study.store import canonical, content_key
from study.training import Diverged, Schedule
from study.trial import _marked
from study.vlm import VLM, load, restored
from tests.small import QUICK, changed, quick, request_on, same_bits, snapshot, trained, variants

ATTACKS = [
    pytest.param(variant, id=f"{name} {' '.join(sorted(trained(variant)))}")
    for name in known("attacks")
    for variant in variants(find("attacks", name)())
]


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path / "cache", tiny_folder, ratio=15)


@pytest.fixture
def questions(request_: Request) -> list[Question]:
    return [q for q in request_.split.questions if q.role == "forget" and q.task == "classification" and q.picture][:20]


# ---- the contract ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", known("attacks"))
def test_an_attack_is_a_value(name: str) -> None:
    """Frozen, with a default for every field, equal by content, and fit for JSON and for another process."""
    attack = find("attacks", name)()
    for field in dataclasses.fields(attack):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(attack, field.name, getattr(attack, field.name))
        other = replace(attack)
        object.__setattr__(other, field.name, "another value")
        assert content_key(other) != content_key(attack)
    assert json.loads(json.dumps(canonical(attack))) == canonical(attack)
    assert pickle.loads(pickle.dumps(attack)) == attack == find("attacks", name)()
    assert name_of(attack) == name


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_first_stage_is_the_model_as_it_was_found(
    attack: Any, tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    """Then the steps rise, every question is asked at each, and the model is ready to be scored."""
    before = snapshot(tiny)
    steps: list[int] = []
    for stage in attack(tiny, questions, request_):
        if not steps:
            assert stage.vlm is tiny
            assert same_bits(before, snapshot(tiny))
            assert list(stage.questions) == questions
        steps.append(stage.step)
        assert [q.id for q in stage.questions] == [q.id for q in questions]
        assert not stage.vlm.model.training
    assert steps[0] == 0
    assert len(steps) > 1
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_trains_its_parts_and_is_undone(
    attack: Any, tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    before = snapshot(tiny)
    with restored(tiny) as (vlm, _):
        last = list(attack(vlm, questions, request_))[-1].vlm
        assert {tiny.part_of(name) for name in changed(before, snapshot(last))} == trained(attack)
    assert same_bits(before, snapshot(tiny))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_repeatable(attack: Any, tiny_folder: Path, request_: Request, questions: list[Question]) -> None:
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        found.append(snapshot(list(attack(load(tiny_folder), questions, request_))[-1].vlm))
    assert same_bits(*found)


@pytest.mark.parametrize("name", known("attacks"))
@pytest.mark.parametrize("goal", ["visual", "full"])
@pytest.mark.parametrize("ratio", [5, 10, 15])
def test_what_is_given_was_to_be_forgotten(
    name: str, goal: Goal, ratio: int, benchmark: Benchmark, tiny_folder: Path, tmp_path: Path
) -> None:
    """And is the same for every model, whatever its seed and its caches."""
    request = request_on(benchmark, tmp_path / "one", tiny_folder, goal=goal, ratio=ratio)
    given = find("attacks", name)().given(request)
    assert set(given) <= set(request.forget)
    other = request_on(benchmark, tmp_path / "two", tiny_folder, goal=goal, ratio=ratio, seed=7)
    assert find("attacks", name)().given(other) == given


# ---- relearning ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("goal", ["visual", "full"])
@pytest.mark.parametrize(
    ("people", "share", "persons", "stated"),
    [(1 / 3, 1.0, 1, 7), (0.5, 0.5, 2, 4), (1.0, 1 / 7, 3, 1), (0.01, 0.01, 1, 1), (1.0, 1.0, 3, 7)],
)
def test_the_shares_are_respected(
    people: float, share: float, persons: int, stated: int, goal: Goal, benchmark: Benchmark, tiny_folder: Path,
    tmp_path: Path
) -> None:  # fmt: skip
    """So many of three people, so many of their seven facts, and of each fact every lesson that states it."""
    request = request_on(benchmark, tmp_path, tiny_folder, goal=goal, ratio=15)
    given = Relearning(people=people, facts=share).given(request)
    fact = facts(request.forget)
    known_facts = {(x.person, fact[x.person, x.answer]) for x in given}
    by_person = {person: {f for who, f in known_facts if who == person} for person, _ in known_facts}
    assert [len(found) for found in by_person.values()] == [stated] * persons
    assert set(given) == {x for x in request.forget if (x.person, fact[x.person, x.answer]) in known_facts}


def test_another_ratio_is_another_attacker(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> None:
    """Facts are drawn afresh for each person: not everybody loses the same ones."""
    request = request_on(benchmark, tmp_path, tiny_folder, ratio=15)
    given = Relearning(people=1.0, facts=0.5).given(request)
    prompts = {
        person: frozenset(x.prompt for x in given if x.person == person) for person in request.split.forget_people
    }
    assert len(set(prompts.values())) > 1


@pytest.mark.parametrize("part", [("projector",), ("vision", "projector", "llm")])
def test_a_learning_rate_of_zero_recovers_nothing_at_all(
    part: Any, tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    """Every row of every step equals that of step 0, to the last bit."""
    idle = Relearning(trains=part, score_at=(1, 3), schedule=replace(QUICK, steps=3, learning_rate=0.0))
    rows = [score(stage.vlm, stage.questions) for stage in idle(tiny, questions, request_)]
    assert len(rows) == 3
    for later in rows[1:]:
        pd.testing.assert_frame_equal(later, rows[0], check_exact=True)


def test_relearning_learns_what_it_is_given(tiny: VLM, request_: Request) -> None:
    """The probability of what it was taught rises; a learning rate of zero is not the only thing that can happen."""
    attack = Relearning(score_at=(30,), schedule=replace(QUICK, steps=30, learning_rate=3e-3, decay="constant"))
    given = facts(attack.given(request_))
    taught = [
        q
        for q in request_.split.questions
        if q.role == "forget" and q.task == "classification" and q.picture and (q.person, q.answer) in given
    ]
    first, last = (score(s.vlm, s.questions)["probability"].mean() for s in attack(tiny, taught, request_))
    assert last > first + 0.1


def test_stages_come_after_exactly_their_steps(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """A stage at step n is the model that was trained n steps, no more."""
    constant = replace(QUICK, steps=4, decay="constant")
    at = {
        s.step: snapshot(s.vlm)
        for s in Relearning(score_at=(2, 4), schedule=constant)(tiny.copy(), questions, request_)
    }
    assert list(at) == [0, 2, 4]
    stopped = replace(constant, steps=2)
    end = list(Relearning(score_at=(2,), schedule=stopped)(tiny.copy(), questions, request_))[-1]
    assert same_bits(at[2], snapshot(end.vlm))
    assert not same_bits(at[2], at[4])


def test_an_instruction_is_dropped_after_step_0(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """The attacker need not keep a refusal in front of the questions; step 0 still has it."""
    instructed = tiny.with_instruction("Where does this person live?")
    said = [s.vlm.instruction for s in quick(Relearning())(instructed, questions, request_)]
    assert said == ["Where does this person live?", "", ""]


def test_an_attack_that_diverges_says_so(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    wild = quick(Relearning(), replace(QUICK, worst_loss=1e-6))
    with pytest.raises(Diverged, match="step 0"):
        list(wild(tiny, questions, request_))


@pytest.mark.parametrize(
    ("field", "value"),
    [("people", 0.0), ("people", 1.5), ("people", math.nan), ("facts", -0.5), ("facts", 2.0), ("score_at", ()),
     ("score_at", (0, 5)), ("score_at", (5, 41))],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        Relearning(schedule=Schedule(steps=40), **{"score_at": (5, 10), field: value})
    assert f"{field}={value!r}" in str(caught.value)


# ---- what counts as recovered ----------------------------------------------------------------------------------
class _Given:
    """An attacker that is handed certain lessons."""

    def __init__(self, *lessons: Lesson) -> None:
        self.lessons = lessons

    def given(self, request: Request) -> tuple[Lesson, ...]:
        return self.lessons

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        raise AssertionError("only what it was given is asked")


def asked(id: str, person: str, answer: str) -> Question:
    return Question(id, person, "forget", "image_text", "classification", "report", "?", answer, (answer, "no"))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((), {}),
        (("a", "Lisbon"), {"a-city": "", "a-job": "fact"}),
        (("a", "This person lives in LISBON."), {"a-city": "", "a-job": "fact"}),
        (("a", "Lisbonne"), {"a-city": "fact", "a-job": "fact"}),
        (("b", "Lisbon"), {"b-city": "", "b-sentence": ""}),
        (("b", "pilot"), {"b-city": "fact", "b-sentence": "fact"}),
    ],
)
def test_a_question_is_seen_if_its_answer_was_stated(
    given: tuple[str, ...], wanted: dict[str, str], request_: Request
) -> None:
    """Stated of that person, in whole words, in one direction or the other; else the person or the fact is held out."""
    there = [asked("a-city", "a", "Lisbon"), asked("a-job", "a", "baker"), asked("b-city", "b", "Lisbon"),
             asked("b-sentence", "b", "This person lives in Lisbon.")]  # fmt: skip
    rows = pd.DataFrame({"question": [q.id for q in there] * 2, "step": [0] * 4 + [5] * 4})
    attacker = _Given(*([Lesson(given[0], "?", given[1])] if given else []))
    found = _marked(rows, there, attacker, request_)
    for line in found.to_dict("records"):
        assert line["held_out"] == wanted.get(line["question"], "person")
        assert line["seen"] == (line["held_out"] == "")
    assert len(found) == 8


def _no_model() -> VLM:
    raise AssertionError("no model is needed")


def test_what_a_longer_lesson_states_is_seen_too() -> None:
    """An attacker who was given the sentence and the word was given one fact."""
    split = Split(5, frozenset("a"), (), ())
    request = Request(split, "visual", (), 0, Path(), _no_model, _no_model)
    rows = pd.DataFrame({"question": ["q", "r"]})
    both = _Given(Lesson("a", "?", "Lisbon"), Lesson("a", "?", "This person lives in Lisbon."))
    found = _marked(rows, [asked("q", "a", "Lisbon"), asked("r", "a", "lives in Lisbon")], both, request)
    assert found["seen"].tolist() == [True, True]
