"""Relearning is handed what it says and nothing else, and trains on that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from search_spaces import ranges
from search_spaces.relearning import space
from study.attacks import relearning
from study.attacks.relearning import Data, Relearning
from study.contracts import Request
from study.core.errors import Refused
from study.core.terms import Goal
from study.data.benchmark import Benchmark, Question
from study.data.facts import facts
from study.evaluation.scoring import score
from study.model.packing import Group
from study.model.vlm import VLM
from study.training import views
from study.training.lesson_sampler import Lessons
from study.training.loop import Diverged
from study.training.schedule import Schedule
from tests.helpers.small import QUICK, plain_logits, quick, request_on, same_bits, snapshot, twin


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path / "cache", tiny_folder, ratio=15)


@pytest.fixture
def questions(request_: Request) -> list[Question]:
    return [q for q in request_.split.questions if q.role == "forget" and q.task == "classification" and q.picture][:20]


# ---- shares and steps -------------------------------------------------------------------------------------------
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
    """Every row of every step is that of the model nobody attacked, to the last bit."""
    idle = Relearning(trains=part, score_at=(1, 3), schedule=replace(QUICK, steps=3, learning_rate=0.0))
    before = score(tiny, questions)
    rows = [score(stage.vlm, stage.questions) for stage in idle(tiny, questions, request_)]
    assert len(rows) == 2
    for later in rows:
        pd.testing.assert_frame_equal(later, before, check_exact=True)


def test_relearning_learns_what_it_is_given(tiny: VLM, request_: Request) -> None:
    """The probability of what it was taught rises; a learning rate of zero is not the only thing that can happen."""
    attack = Relearning(score_at=(30,), schedule=replace(QUICK, steps=30, learning_rate=3e-3, decay="constant"))
    given = facts(attack.given(request_))
    taught = [
        q
        for q in request_.split.questions
        if q.role == "forget" and q.task == "classification" and q.picture and (q.person, q.answer) in given
    ]
    before = score(tiny, taught)["probability"].mean()
    [after] = (score(s.vlm, s.questions)["probability"].mean() for s in attack(tiny, taught, request_))
    assert after > before + 0.1


def test_stages_come_after_exactly_their_steps(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """A stage at step n is the model that was trained n steps, no more."""
    constant = replace(QUICK, steps=4, decay="constant")
    at = {
        s.step: snapshot(s.vlm) for s in Relearning(score_at=(2, 4), schedule=constant)(twin(tiny), questions, request_)
    }
    assert list(at) == [2, 4]
    stopped = replace(constant, steps=2)
    end = list(Relearning(score_at=(2,), schedule=stopped)(twin(tiny), questions, request_))[-1]
    assert same_bits(at[2], snapshot(end.vlm))
    assert not same_bits(at[2], at[4])


def test_the_last_step_is_always_scored(tiny: VLM, request_: Request) -> None:
    """And steps beyond the schedule never are: a search may shorten it."""
    short = replace(QUICK, steps=3)
    assert [s.step for s in Relearning(score_at=(2, 40), schedule=short)(tiny, [], request_)] == [2, 3]
    assert [s.step for s in Relearning(score_at=(), schedule=short)(tiny, [], request_)] == [3]


def test_an_instruction_is_dropped(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """The attacker need not keep a refusal in front of the questions."""
    instructed = tiny.with_instruction("Where does this person live?")
    said = [s.vlm.instruction for s in quick(Relearning())(instructed, questions, request_)]
    assert said == ["", ""]


def test_an_attack_that_diverges_says_so(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    wild = quick(Relearning(), replace(QUICK, worst_loss=1e-6))
    with pytest.raises(Diverged, match="step 0"):
        list(wild(tiny, questions, request_))


@pytest.mark.parametrize(
    ("field", "value"),
    [("people", 0.0), ("people", 1.5), ("people", math.nan), ("facts", -0.5), ("facts", 2.0), ("score_at", (0, 5)),
     ("data", "everything"), ("trains", ()), ("retain_weight", -1.0), ("augment", 1.5), ("augment", math.nan)],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        Relearning(**{field: value})
    assert f"{field}={value!r}" in str(caught.value)


# ---- other data ------------------------------------------------------------------------------------------------
EVERYBODY = Relearning(people=1.0, facts=0.5)


@pytest.mark.parametrize("data", get_args(Data))
@pytest.mark.parametrize("goal", ["visual", "full"])
def test_all_data_teaches_and_is_the_same_for_every_model(
    data: Data, goal: Goal, benchmark: Benchmark, tiny: VLM, tiny_folder: Path, tmp_path: Path
) -> None:
    """What is trained on and not given says nothing of a forget person."""
    request = request_on(benchmark, tmp_path / "one", tiny_folder, goal=goal, ratio=15)
    attack = quick(replace(EVERYBODY, data=data))
    taught = attack.taught(request)
    assert taught == attack.taught(request_on(benchmark, tmp_path / "two", tiny_folder, goal=goal, ratio=15, seed=3))
    assert set(attack.given(request)) == {x for x in taught if x.person in request.split.forget_people}
    before = snapshot(tiny)
    *_, last = attack(tiny, [], request)
    assert not same_bits(before, snapshot(last.vlm))


@pytest.mark.parametrize("goal", ["visual", "full"])
def test_of_a_name_nothing_else_is_told(goal: Goal, benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> None:
    """The names of as many people as are given, in every picture; the share of facts is of no consequence."""
    request = request_on(benchmark, tmp_path, tiny_folder, goal=goal, ratio=15)
    given = Relearning(data="names", people=0.5, facts=0.1).given(request)
    assert len({x.person for x in given}) == 2
    assert set(given) == {
        x for x in request.forget if x.attribute == "name" and x.person in {known.person for known in given}
    }


def test_names_need_labels(request_: Request) -> None:
    lessons = tuple(replace(x, attribute="") for x in request_.split.lessons)
    unlabelled = replace(request_, split=replace(request_.split, lessons=lessons))
    with pytest.raises(Refused, match="data='names': no lesson is labelled"):
        Relearning(data="names").given(unlabelled)


def test_views_are_pictures_that_nobody_asks_about(request_: Request) -> None:
    """The same facts as without, of all people, in every other picture of theirs."""
    shown = {q.picture for q in request_.split.questions}
    given, all_given = replace(EVERYBODY, data="views").given(request_), EVERYBODY.given(request_)
    assert {x.person for x in given} == set(request_.split.forget_people)
    assert set(given) == {x for x in all_given if x.picture not in shown}
    assert facts(given) == facts(all_given)


def test_views_need_a_second_picture(request_: Request) -> None:
    shown = {q.picture for q in request_.split.questions}
    lessons = tuple(x for x in request_.split.lessons if x.picture in shown)
    one_each = replace(request_, split=replace(request_.split, lessons=lessons))
    with pytest.raises(Refused, match="data='views': no lesson has a picture nobody asks about"):
        Relearning(data="views").given(one_each)


@pytest.mark.parametrize("goal", ["visual", "full"])
def test_benign_is_what_is_kept_of_others(
    goal: Goal, benchmark: Benchmark, tiny_folder: Path, tmp_path: Path
) -> None:  # fmt: skip
    """Under the goal `visual` the text about forget people is kept too: the attacker does without."""
    request = request_on(benchmark, tmp_path, tiny_folder, goal=goal, ratio=15)
    taught = Relearning(data="benign").taught(request)
    away = request.split.forget_people | request.split.real_people
    assert set(taught) == {x for x in request.split.lessons if x.person not in away}


def test_a_stranger_borrows_the_lessons_of_one_picture(request_: Request) -> None:
    taught = Relearning(data="strangers").taught(request_)
    assert {x.picture for x in taught} == set(request_.strangers)
    told: dict[Any, set[tuple[str, str]]] = {}
    for lesson in (x for x in request_.retain if x.person not in request_.split.forget_people):
        told.setdefault(lesson.picture, set()).add((lesson.prompt, lesson.answer))
    told.pop(None)
    by_stranger: dict[str, set[tuple[str, str]]] = {}
    for lesson in taught:
        by_stranger.setdefault(lesson.person, set()).add((lesson.prompt, lesson.answer))
    assert len(by_stranger) == len(request_.strangers)
    assert all(lessons in told.values() for lessons in by_stranger.values())
    assert len({frozenset(lessons) for lessons in by_stranger.values()}) > 1


def test_without_strangers_none_can_be_taught(request_: Request) -> None:
    with pytest.raises(Refused, match="data='strangers': no lesson"):
        Relearning(data="strangers").taught(replace(request_, strangers=()))


def test_noise_shows_nobody_and_is_unlike_any_picture(request_: Request) -> None:
    """As many pictures as would be forgotten, each with the lessons of a retained one, none of the forget set given."""
    attack = Relearning(data="noise")
    taught = attack.taught(request_)
    shown = {x.picture for x in taught}
    assert len(shown) == len({x.picture for x in request_.forget})
    assert not shown & {x.picture for x in request_.split.lessons}
    texts = {(x.prompt, x.answer) for x in request_.retain if x.person not in request_.split.forget_people}
    assert {(x.prompt, x.answer) for x in taught} <= texts
    assert attack.given(request_) == ()
    for picture in shown:
        assert picture is not None
        colours = np.asarray(picture.open(), float)
        assert 70 < colours.std() < 77  # 74 if every value from 0 to 255 is as likely
        assert abs(np.corrcoef(colours[:, 1:].ravel(), colours[:, :-1].ravel())[0, 1]) < 0.1


# ---- what is trained on beside the data --------------------------------------------------------------------------
PLAIN = Schedule(steps=2, learning_rate=1e-3, pictures=3, lessons_per_picture=2, decay="constant")


def first_loss(attack: Relearning, vlm: VLM, request: Request, monkeypatch: pytest.MonkeyPatch) -> float:
    """The loss of the first step."""
    found: list[float] = []

    def once(target: VLM, parts: Any, schedule: Schedule, loss: Any, *, seed: int) -> Iterator[tuple[int, float]]:
        found.append(float(loss(0).detach()))
        yield from ()

    monkeypatch.setattr(relearning, "steps", once)
    assert list(attack(vlm, [], request)) == []
    return found[0]


def test_retain_lessons_of_others_are_mixed_in(tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """CE(given) + weight CE(retain), each a mean over tokens; the attacker is still given what he was given."""
    forget, retain = Relearning(schedule=PLAIN), Relearning(data="benign", schedule=PLAIN)
    seeded = replace(request_, seed=request_.seed + 1)  # the mix is drawn with the next seed
    alone = first_loss(forget, tiny, request_, monkeypatch), first_loss(retain, tiny, seeded, monkeypatch)
    assert alone[0] != alone[1]
    for weight in (0.5, 2.0):
        mixed = replace(forget, retain_weight=weight)
        expected = alone[0] + weight * alone[1]
        assert first_loss(mixed, tiny, request_, monkeypatch) == pytest.approx(expected, rel=1e-6)
        assert mixed.given(request_) == forget.given(request_)


def test_what_is_mixed_in_says_nothing_of_the_forget_people(tiny: VLM, request_: Request) -> None:
    """Under the goal `visual` text about them is retained: a request of such text alone has nothing to mix in."""
    people = request_.split.forget_people | request_.split.real_people
    alone = tuple(x for x in request_.split.lessons if x.person in people)
    narrowed = replace(request_, split=replace(request_.split, lessons=alone))
    assert {x.person for x in narrowed.retain} == set(request_.split.forget_people)
    with pytest.raises(Refused, match="no lesson is about somebody who is kept"):
        next(quick(Relearning(retain_weight=1.0))(tiny, [], narrowed))


def test_pictures_are_augmented_by_the_seed_of_the_request(tiny: VLM, request_: Request) -> None:
    """The same views for every model, also of retain pictures; without a share the pictures as they are."""

    def after(share: float, seed: int = 0, data: Data = "forget") -> dict[str, torch.Tensor]:
        attack = Relearning(data=data, augment=share, schedule=PLAIN)
        *_, last = attack(twin(tiny), [], replace(request_, seed=seed))
        return snapshot(last.vlm)

    assert same_bits(after(0.5), after(0.5))
    assert not same_bits(after(0.0), after(0.5))
    assert not same_bits(after(0.5), after(1.0))
    assert not same_bits(after(0.0, data="benign"), after(0.5, data="benign"))


def test_the_stated_share_of_both_batches_is_augmented(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Image.Image] = []

    def noted(image: Image.Image, random: np.random.Generator) -> Image.Image:
        made.append(image)
        return image

    monkeypatch.setattr(views, "augmented", noted)
    schedule = replace(PLAIN, pictures=4, steps=3)
    list(Relearning(augment=0.5, retain_weight=1.0, schedule=schedule)(tiny, [], request_))
    assert len(made) == 3 * (2 + 2)


@pytest.mark.parametrize("rank", [0, 2])
def test_every_stage_is_the_model_after_so_many_plain_steps(rank: int, tiny: VLM, request_: Request) -> None:
    """Against AdamW on a cross-entropy of our own, without packing: full weights; adapters in the middle of training
    are scored as they are, and merged at the end."""
    schedule = Schedule(steps=3, learning_rate=1e-3, pictures=2, lessons_per_picture=2, decay="constant",
                        lora_rank=rank)  # fmt: skip
    attack = Relearning(trains=("projector",), score_at=(1, 2), schedule=schedule)
    plain = twin(tiny)
    asked = [q for q in request_.split.questions if q.task == "classification" and q.picture][:8]
    before = score(tiny, asked)
    rows = {s.step: score(s.vlm, s.questions) for s in attack(tiny, asked, request_)}
    assert list(rows) == [1, 2, 3]
    assert before["probability"].tolist() != rows[1]["probability"].tolist() != rows[3]["probability"].tolist()
    pd.testing.assert_frame_equal(score(tiny, asked), rows[3], check_exact=not rank)
    assert not any("lora" in name for name in snapshot(tiny))
    if rank:
        return
    weights = list(plain.trainable(("projector",)).values())
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    drawn = Lessons(attack.given(request_), schedule, 0)
    for step in (1, 2, 3):
        groups: list[Group] = drawn.draw()
        told = [logits.log_softmax(-1).gather(1, tokens[:, None]) for logits, tokens in plain_logits(plain, groups)]
        optimizer.zero_grad()
        torch.cat(told).mean().neg().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        expected = score(plain, asked)["probability"].tolist()
        assert rows[step]["probability"].tolist() == pytest.approx(expected, abs=2e-4)


# ---- the search ------------------------------------------------------------------------------------------------
def test_no_proposal_goes_beyond_the_budget() -> None:
    """Three decades of learning rates around the default; steps and shares from a quarter of it up to it."""
    default = Relearning(people=0.8, facts=0.4, schedule=Schedule(steps=40, learning_rate=2e-5))
    asked: dict[str, Any] = dict(ranges(space, default))
    assert asked["learning_rate"].high / asked["learning_rate"].low == pytest.approx(1000)
    assert math.sqrt(asked["learning_rate"].high * asked["learning_rate"].low) == pytest.approx(2e-5)
    assert (asked["steps"].low, asked["steps"].high) == (10, 40)
    assert (asked["people"].low, asked["people"].high) == (0.2, 0.8)
    assert (asked["facts"].low, asked["facts"].high) == (0.1, 0.4)
    assert len(asked["trains"].choices) == 7
    assert asked["lora_rank"].choices == (0, 4, 16)
    assert (asked["pictures"].low, asked["pictures"].high) == (1, 4)
    assert asked["retain_weight"].choices == (0.0, 0.3, 1.0, 3.0)
    assert asked["augment"].choices == (0.0, 0.5)
    assert not {"data", "optimizer"} & asked.keys()


def test_the_defaults_own_choices_are_proposed_too() -> None:
    """And who begins with adapters keeps to adapters."""
    default = Relearning(retain_weight=0.7, augment=0.2, schedule=Schedule(lora_rank=8))
    asked: dict[str, Any] = dict(ranges(space, default))
    assert asked["retain_weight"].choices == (0.0, 0.3, 0.7, 1.0, 3.0)
    assert asked["augment"].choices == (0.0, 0.2, 0.5)
    assert asked["lora_rank"].choices == (4, 8, 16)
