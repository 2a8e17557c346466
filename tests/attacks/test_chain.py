"""Composed attacks: each link on what the one before left, written with slashes, told apart and told in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from analysis import naming
from analysis.sections._attack_suite import told
from analysis.study_folder import Attack as Kept
from search_spaces.chain import space
from study.attacks.adapter_scaling import AdapterScaling
from study.attacks.chain import Chain
from study.attacks.jailbreak import TEMPLATES, Jailbreak
from study.attacks.logit_lens import LogitLens
from study.attacks.membership_inference import MembershipInference
from study.attacks.nothing import Nothing
from study.attacks.prefill import Prefill
from study.attacks.probe import Probe
from study.attacks.quantization import Quantization
from study.attacks.relearning import Relearning
from study.attacks.swap_back import SwapBack
from study.contracts import Attack, Request, Stage
from study.core.errors import Refused
from study.core.hashing import canonical, content_key
from study.core.plugins import find, known, known_spaces, name_of
from study.core.records import AttackRecord
from study.core.specs import parameters
from study.core.terms import Part
from study.data.benchmark import Benchmark, Lesson, Question
from study.evaluation.scoring import score
from study.model.vlm import VLM
from study.presets import PRESETS
from study.settings import Study
from tests.helpers.small import QUICK, quick, request_on, same_bits, snapshot, twin


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path / "cache", tiny_folder, ratio=15)


@pytest.fixture
def questions(request_: Request) -> list[Question]:
    return [q for q in request_.split.questions if q.role == "forget" and q.task == "classification" and q.picture][:6]


@dataclass(frozen=True)
class Planted(Attack):
    """Is given some lessons and leaves a model, or a reading, at the steps it says."""

    lessons: tuple[Lesson, ...] = ()
    steps: tuple[int, ...] = (1,)
    reads: bool = False

    def given(self, request: Request) -> tuple[Lesson, ...]:
        return self.lessons

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        for step in self.steps:
            yield Stage(step, vlm, questions, score if self.reads else None)


# ---- what a chain does -----------------------------------------------------------------------------------------------
def test_every_link_attacks_what_the_one_before_left(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """By hand: one attack run to its end, then the next on its last stage. The order matters."""
    relearn, rounding = quick(Relearning(), replace(QUICK, learning_rate=1e-2)), Quantization("int4")
    ends = []
    for links in ((relearn, rounding), (rounding, relearn)):
        by_hand, asked = twin(tiny), questions
        for link in links:
            *_, last = link(by_hand, asked, request_)
            by_hand, asked = last.vlm, list(last.questions)
        *_, end = Chain(links)(twin(tiny), questions, request_)
        assert same_bits(snapshot(by_hand), snapshot(end.vlm))
        ends.append(snapshot(end.vlm))
    assert not same_bits(*ends)


def test_questions_and_replies_are_handed_on_too(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    chain = Chain((Jailbreak("authority"), Prefill("This person"), SwapBack()))
    [last] = chain(tiny.with_instruction("Say nothing."), questions, request_)
    assert (last.vlm.instruction, last.vlm.prefill) == ("", "This person")
    assert [q.prompt for q in last.questions] == [TEMPLATES["authority"].format(question=q.prompt) for q in questions]


def test_the_steps_are_those_of_the_last_link(tiny: VLM, request_: Request) -> None:
    """Whatever the others took."""
    chain = Chain((Planted(steps=(7, 9)), Planted(steps=(3, 5)), Planted(steps=(4, 6))))
    assert [stage.step for stage in chain(tiny, [], request_)] == [4, 6]


def test_it_changes_what_any_link_changes() -> None:
    """In the order of the parts, each once; an attack on questions changes none."""
    assert Chain((Quantization(parts=("llm",)), SwapBack(("projector",)))).changes == ("projector", "llm")
    assert Chain((SwapBack(head=True), Relearning(trains=("vision",)))).changes == ("vision", "llm")
    assert Chain((Jailbreak(), Nothing())).changes == ()


def test_adapters_of_an_earlier_link_are_merged(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """A link is run to its end, so that the next one meets an ordinary model."""
    names = list(tiny.tensors())
    relearn = quick(Relearning(), replace(QUICK, lora_rank=2))
    *_, last = Chain((relearn, Nothing()))(tiny, questions, request_)
    assert list(last.vlm.tensors()) == names


def test_it_is_given_what_its_links_are_given(request_: Request) -> None:
    """Each lesson once, in the order of the links."""
    a, b, c = request_.forget[:3]
    assert Chain((Planted((b, a)), Planted(), Planted((a, c, b)))).given(request_) == (b, a, c)


def test_fewer_than_two_links_are_no_chain() -> None:
    for links in ((), (Nothing(),)):
        with pytest.raises(ValueError, match=r"links=.*name at least two attacks"):
            Chain(links)


# ---- what can stand where --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reading", [Probe(), LogitLens(), MembershipInference()])
def test_what_reads_the_model_its_own_way_stands_last(
    reading: Attack, tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    name = type(reading).__module__.rpartition(".")[2]
    with pytest.raises(ValueError, match=f"{name}/swap_back: {name} reads .* put it last"):
        Chain((reading, SwapBack()))
    *_, last = Chain((SwapBack(), reading))(tiny, questions, request_)
    assert last.read is not None


def test_a_reading_that_was_not_announced_is_refused_when_it_comes(tiny: VLM, request_: Request) -> None:
    with pytest.raises(Refused, match="test_chain/nothing: test_chain reads the model its own way"):
        next(Chain((Planted(reads=True), Nothing()))(tiny, [], request_))


def test_an_adapter_is_taken_off_before_anything_else(tiny: VLM, request_: Request) -> None:
    """After another attack the weights would no longer be start plus adapter."""
    with pytest.raises(ValueError, match=r"swap_back/adapter_scaling: adapter_scaling needs .* put it first"):
        Chain((SwapBack(), AdapterScaling()))
    assert len(list(Chain((AdapterScaling(), SwapBack()))(tiny, [], request_))) == 1


def test_a_probe_knows_nobody_on_changed_pictures(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """Who is on the pictures of another attack is nowhere said: better no answer than the ordinary score."""
    chain = Chain((find("attacks", "image_transform")(), Probe()))
    with pytest.raises(Refused, match="its picture is none of the benchmark's"):
        list(chain(tiny, questions, request_))


# ---- how it is written -----------------------------------------------------------------------------------------------
def study(**fields: Any) -> Study:
    return replace(PRESETS["tiny"][1], **fields).resolved()


def test_slashes_compose() -> None:
    text = "swap_back:parts=vision+projector/prefill:text=It is/quantization:format=nf4"
    [found] = study(attacks=(text,)).attackers()
    assert found == Chain((SwapBack(("vision", "projector")), Prefill("It is"), Quantization("nf4")))


def test_every_setting_of_the_presets_grid_is_composed() -> None:
    """Three kinds of relearning after one swap are three attacks, with what was set for all of them."""
    several = study(attacks=("swap_back/relearning:steps=7",)).attackers()
    alone = study(attacks=("relearning:steps=7",)).attackers()
    assert len(alone) == 3
    assert several == tuple(Chain((SwapBack(), relearning)) for relearning in alone)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("chain", "'chain': write composed attacks with slashes, such as swap_back/quantization:format=nf4"),
        ("chain:links=swap_back", "write composed attacks with slashes"),
        ("swap_back/chain", "write composed attacks with slashes"),
        ("swap_back/quantizaton", "unknown name 'quantizaton' among the attacks: did you mean 'quantization'"),
        ("swap_bak/nothing", "unknown name 'swap_bak' among the attacks: did you mean 'swap_back'"),
        ("swap_back/", "unknown name '' among the attacks"),
        ("nothing/quantization:fromat=nf4", "unknown name 'fromat' among the settings of quantization"),
        ("probe/nothing", "probe/nothing: probe reads the model its own way and leaves nothing to attack: put it last"),
    ],
)
def test_what_cannot_be_composed_is_refused_before_any_model(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"chain|unknown|probe") as caught:
        study(attacks=(text,)).attackers()
    assert told in str(caught.value)


# ---- how it is searched ----------------------------------------------------------------------------------------------
def proposed(default: Chain, count: int = 30) -> list[tuple[Chain, dict[str, Any]]]:
    """Random proposals around composed attacks, with their parameters."""
    trials = [optuna.create_study(sampler=RandomSampler(seed=seed)).ask() for seed in range(count)]
    return [(space(trial, default), trial.params) for trial in trials]


@pytest.mark.parametrize("text", ["swap_back/relearning", "interpolation/relearning", "prefill/quantization/nothing"])
def test_composed_attacks_are_searched_where_a_link_is(text: str) -> None:
    """From where the preset starts; what has no space stays as it is."""
    [default] = study(searched_attacks=(text,), attack_trials=1).attack_defaults().values()
    assert isinstance(default, Chain)
    assert space(FixedTrial(parameters(default)), default) == default
    found = proposed(default)
    for chain, params in found:
        assert {**parameters(default), **params} == parameters(chain)
        assert space(FixedTrial(params), default) == chain
    for at, link in enumerate(default.links):
        searched = name_of(link) in known_spaces()
        assert (len({chain.links[at] for chain, _ in found}) > 1) == searched


def test_links_of_one_kind_are_searched_apart() -> None:
    default = Chain((Quantization("int8"), SwapBack(), Quantization("nf4", ("vision",))))
    found = proposed(default)
    names = {"format", "parts", "group_size", "head"}
    swapped = {"2.swap_back.parts", "2.swap_back.head"}
    expected = {f"{at}.quantization.{name}" for at in (1, 3) for name in names} | swapped
    assert {*found[0][1]} == expected
    formats = {(params["1.quantization.format"], params["3.quantization.format"]) for _, params in found}
    assert len(formats) > 3


def test_of_swap_back_the_public_parts_are_searched() -> None:
    """Vision, projector or both, with or without the head; never the LLM. Who begins with the head keeps to it."""
    found = {chain.links[0] for chain, _ in proposed(Chain((SwapBack(), Nothing())), 60)}
    sides: list[tuple[Part, ...]] = [("vision",), ("projector",), ("vision", "projector")]
    assert found == {SwapBack(parts, head) for parts in sides for head in (False, True)}
    alone = {chain.links[0] for chain, _ in proposed(Chain((SwapBack((), head=True), Nothing())), 60)}
    assert alone == {SwapBack(parts, head=True) for parts in [(), *sides]}


def test_what_is_proposed_can_be_written_on_the_command_line() -> None:
    default = Chain((SwapBack(), Quantization()))
    for chain, params in proposed(default, 8):
        told: dict[str, list[str]] = {"1.swap_back": [], "2.quantization": []}
        for name, value in params.items():
            link, _, field = name.rpartition(".")
            told[link].append(f"{field}={str(value).lower() if isinstance(value, bool) else value}")
        text = "/".join(f"{link[2:]}:{','.join(fields)}" for link, fields in told.items())
        assert study(attacks=(text,), attack_grid={}).attackers() == (chain,)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing/prefill", r"nothing of 'nothing/prefill' can be searched; name at least one of .*relearning"),
        ("nothing", r"nothing of 'nothing' can be searched; name at least one of .*relearning"),
        ("swap_bak/relearning", "unknown name 'swap_bak' .* did you mean 'swap_back'"),
        ("chain", "'chain': write composed attacks with slashes"),
    ],
)
def test_what_cannot_be_searched_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        study(searched_attacks=(text,))


# ---- how it is told --------------------------------------------------------------------------------------------------
def test_a_chain_is_known_by_its_links() -> None:
    """By what they are, how they are set, and their order; even where links have the same fields or none."""
    chains = [
        Chain((SwapBack(), Quantization())), Chain((Quantization(), SwapBack())),
        Chain((SwapBack(), Quantization("nf4"))), Chain((Nothing(), Nothing())),
        Chain((Nothing(), Nothing(), Nothing())), *(Chain((Nothing(), find("attacks", name)())) for name in PLAIN),
    ]  # fmt: skip
    assert len({content_key(chain) for chain in chains}) == len(chains)


PLAIN = [name for name in known("attacks") if name not in ("nothing", "adapter_scaling")]


def kept(attack: Attack, name: str) -> Kept:
    """An attack as the analysis finds it."""
    return Kept(content_key(attack), AttackRecord(name, canonical(attack)), "complete", Path())


def test_a_chain_is_told_by_its_links_and_what_varies() -> None:
    attacks = {
        "a": kept(SwapBack(), "swap_back"),
        "b": kept(Chain((SwapBack(), Quantization("nf4"))), "chain"),
        "c": kept(Chain((SwapBack(), Quantization("int4"))), "chain"),
        "d": kept(Chain((Quantization("int8"), Quantization("nf4"))), "chain"),
        "e": kept(Chain((Quantization("int8"), Quantization("int4"))), "chain"),
        "f": kept(Chain((SwapBack(), Relearning())), "chain"),
    }
    assert naming.differing({key: told(attack) for key, attack in attacks.items()}) == {
        "a": "swap back",
        "b": "swap back then quantization, quantization nf4",
        "c": "swap back then quantization, quantization int4",
        "d": "quantization then quantization, quantization 2 nf4",
        "e": "quantization then quantization, quantization 2 int4",
        "f": "swap back then relearning",
    }
