"""Every attack keeps the contract, every search space of one can be replayed, and what counts as recovered."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from search_spaces import refusal
from study.attacks.chain import Chain
from study.attacks.nothing import Nothing
from study.contracts import Attack, Request, Stage
from study.core.hashing import canonical, content_key
from study.core.plugins import find, known, known_spaces, name_of, search_space
from study.core.specs import adjusted, flat
from study.core.terms import PARTS, Goal, Part
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.evaluation.scoring import score
from study.experiment.attack import marked
from study.model.vlm import VLM
from tests.helpers.small import borrowed, changed, fresh, request_on, same_bits, snapshot, variants


def moved(attack: Any) -> set[Part]:
    """The parts whose weights an attack changes: those it trains, or `parts` of one that does not train; of composed
    ones, those of all links."""
    if isinstance(attack, Chain):
        return set().union(*map(moved, attack.links))
    return {*attack.trains, *attack.parts}


def forms(attack: Any) -> Iterator[Any]:
    """An attack in its short forms, and once for each single part that it can change."""
    yield from variants(attack)
    for part in PARTS if attack.parts else ():
        try:
            yield replace(attack, parts=(part,))
        except ValueError:
            continue


def every(*of_a_part: pytest.MarkDecorator) -> list[Any]:
    """Every attack, and each for every single part that it can change, marked as said."""
    return [
        pytest.param(form, id=f"{name} {' '.join(sorted(moved(form)))}".strip(), marks=of_a_part if number else ())
        for name in known("attacks")
        for number, form in enumerate(forms(find("attacks", name)()))
    ]


ATTACKS, WHOLE_FIRST = every(), every(pytest.mark.combinations)
SEARCHED = [name for name in known("attacks") if name in known_spaces()]


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    """Three people to forget, by an adapter; of the base model and of the start every weight is another one."""

    def other() -> VLM:
        vlm = fresh(tiny_folder)
        with torch.no_grad():
            for parameter in vlm.model.parameters():
                parameter.add_(0.01)
        return vlm

    request = request_on(benchmark, tmp_path / "cache", tiny_folder, ratio=15)
    return replace(request, base=other, start=lambda: other().tensors(), adapter=True)


@pytest.fixture
def questions(request: pytest.FixtureRequest, request_: Request) -> list[Question]:
    """Twenty of those that the tested attack asks; choices where no attack is tested."""
    given = getattr(request.node, "callspec", None)
    tasks = given.params.get("attack", Nothing()).asks if given else Nothing().asks
    return [q for q in request_.split.questions if q.role == "forget" and q.task in tasks and q.picture][:20]


def read(stage: Stage) -> pd.DataFrame:
    """The rows of a stage, as a trial reads them."""
    return (stage.read or score)(stage.vlm, stage.questions)


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
def test_an_attack_yields_what_it_changed(attack: Any, tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """At every stage: the weights, the questions, the reply's first words, or how answers are read.

    Steps rise from 1, every question is asked at each, and the model is ready to be scored. What reads the model its
    own way says that it can only stand last in a chain.
    """
    before = snapshot(tiny)
    steps: list[int] = []
    readings = []
    for stage in attack(tiny, questions, request_):
        untouched = same_bits(before, snapshot(stage.vlm)) and (stage.vlm.prefill, stage.read) == ("", None)
        assert (untouched and list(stage.questions) == questions) == isinstance(attack, Nothing)
        steps.append(stage.step)
        readings.append(stage.read)
        assert [q.id for q in stage.questions] == [q.id for q in questions]
        assert not stage.vlm.model.training
    assert steps
    assert steps[0] >= 1
    assert steps == sorted(set(steps))
    assert any(readings) == (attack.in_chain == "last")


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_says_which_parts_it_may_write_to(attack: Any) -> None:
    """Those that it changes: an attack that names none passes for one on the input alone, which ruins no model."""
    assert set(attack.changes) == moved(attack)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_changes_its_parts_and_is_undone(
    attack: Any, tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    """What trains says so in `trains`, what changes weights otherwise in `parts`; all others leave them alone."""
    before = snapshot(tiny)
    with borrowed(tiny) as (vlm, _):
        last = list(attack(vlm, questions, request_))[-1].vlm
        assert {tiny.part_of(name) for name in changed(before, snapshot(last))} == moved(attack)
    assert same_bits(before, snapshot(tiny))


@pytest.mark.parametrize("attack", WHOLE_FIRST)
def test_an_attack_is_repeatable(attack: Any, tiny_folder: Path, request_: Request, questions: list[Question]) -> None:
    """The same weights, questions and rows, whatever the state of torch's random numbers."""
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        *_, last = attack(fresh(tiny_folder), questions, request_)
        found.append((snapshot(last.vlm), list(last.questions), read(last)))
    (weights, asked, rows), (weights_again, asked_again, rows_again) = found
    assert same_bits(weights, weights_again)
    assert asked == asked_again
    pd.testing.assert_frame_equal(rows, rows_again, check_exact=True)
    assert sorted(rows["question"]) == sorted(q.id for q in questions)
    assert rows["probability"].between(0, 1).all()


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


def test_nothing_changes_nothing(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """Not even the instruction: it is what the model answers when nobody attacks it."""
    instructed = tiny.with_instruction("Where does this person live?")
    before = snapshot(tiny)
    [stage] = Nothing()(instructed, questions, request_)
    assert stage.vlm is instructed
    assert stage.questions is questions
    assert same_bits(before, snapshot(tiny))
    pd.testing.assert_frame_equal(read(stage), score(instructed, questions), check_exact=True)


# ---- search spaces -----------------------------------------------------------------------------------------------
def plain(attack: Any) -> dict[str, Any]:
    """Every field by its name, tuples as the command line writes them."""
    return {k: "+".join(map(str, v)) if isinstance(v, tuple) else v for k, v in flat(attack).items()}


def proposals(name: str, count: int = 40) -> list[tuple[Any, dict[str, Any]]]:
    """Random proposals around the class's default, with their parameters after a trip through a JSON file."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    asked = [study.ask() for _ in range(count)]
    made = [search_space(name).space(trial, find("attacks", name)()) for trial in asked]
    return [(attack, json.loads(json.dumps(trial.params))) for attack, trial in zip(made, asked, strict=True)]


@pytest.mark.parametrize("name", SEARCHED)
def test_a_proposed_attack_replays_from_its_parameters(name: str) -> None:
    """They are named after the fields that they set, plain values all; what is not proposed stays the default."""
    default = find("attacks", name)()
    for attack, params in proposals(name):
        assert search_space(name).space(FixedTrial(params), default) == attack
        assert plain(attack) == plain(default) | params
        assert name_of(attack) == name


@pytest.mark.parametrize("name", SEARCHED)
def test_every_parameter_of_an_attack_varies(name: str) -> None:
    found = proposals(name)
    assert found[0][1]
    for field in found[0][1]:
        assert len({params[field] for _, params in found}) > 1, field


@pytest.mark.parametrize("name", SEARCHED)
def test_the_default_of_an_attack_lies_in_its_space(name: str) -> None:
    default = find("attacks", name)()
    assert refusal(search_space(name).space, default, plain(default)) == ""
    assert search_space(name).space(FixedTrial(plain(default)), default) == default


@pytest.mark.parametrize("name", [name for name in SEARCHED if name != "chain"])
def test_a_proposed_attack_can_be_written_on_the_command_line(name: str) -> None:
    """What the search found is what `--attacks` can ask for; of composed ones that is said with the other chains."""
    default = find("attacks", name)()
    for attack, params in proposals(name, 8):
        written = ",".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in params.items())
        assert adjusted(default, f"{name}:{written}") == attack


# ---- what counts as recovered ----------------------------------------------------------------------------------
class _Given(Attack):
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
    found = marked(rows, there, attacker, request_)
    for line in found.to_dict("records"):
        assert line["held_out"] == wanted.get(line["question"], "person")
        assert line["seen"] == (line["held_out"] == "")
    assert len(found) == 8


def _no_model() -> VLM:
    raise AssertionError("no model is needed")


def test_what_a_longer_lesson_states_is_seen_too() -> None:
    """An attacker who was given the sentence and the word was given one fact."""
    split = Split(5, frozenset("a"), (), ())
    request = Request(split, "visual", (), 0, Path(), *(_no_model,) * 2, dict)
    rows = pd.DataFrame({"question": ["q", "r"]})
    both = _Given(Lesson("a", "?", "Lisbon"), Lesson("a", "?", "This person lives in Lisbon."))
    found = marked(rows, [asked("q", "a", "Lisbon"), asked("r", "a", "lives in Lisbon")], both, request)
    assert found["seen"].tolist() == [True, True]
