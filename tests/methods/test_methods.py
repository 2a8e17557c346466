"""Every method keeps the contract, and the loss of each is the formula in its docstring."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from study.contracts import Request
from study.core.errors import Refused
from study.core.hashing import canonical, content_key
from study.core.plugins import find, known, name_of
from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark, Lesson
from study.data.refusals import REFUSALS
from study.data.wordings import HELD_OUT, TRAINABLE, Wordings
from study.methods.gradient_ascent import GradientAscent
from study.methods.gradient_difference import GradientDifference
from study.methods.kl_minimization import KLMinimization
from study.methods.none import NoMethod
from study.methods.npo import NPO
from study.methods.preference_optimization import PreferenceOptimization
from study.methods.prompting import INSTRUCTIONS, Prompting
from study.methods.retrain import Retrain
from study.methods.rmu import RMU, states
from study.methods.satimp import SatImp
from study.methods.simnpo import SimNPO
from study.methods.undial import UNDIAL
from study.methods.vkd import VKD
from study.methods.wga import WGA
from study.model import likelihood
from study.model.packing import Batch, Group, Prompt, logits, pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule
from tests.helpers.small import (
    QUICK,
    borrowed,
    changed,
    fresh,
    plain_logits,
    plain_logps,
    quick,
    request_on,
    same_bits,
    snapshot,
    trained,
    twin,
    variants,
    without_norm,
)


def fitting(name: str) -> Any:
    """A method with its published settings, at a layer that a model of two layers has."""
    return with_layer(find("methods", name)())


def with_layer(method: Any) -> Any:
    return dataclasses.replace(method, layer=1) if isinstance(method, RMU) else method


def label(method: Any) -> str:
    return " ".join(filter(None, [name_of(method), getattr(method, "form", ""), getattr(method, "variant", "")]))


FORMS: dict[str, tuple[Any, ...]] = {"vkd": (VKD(variant="features"), VKD(neurons="pruned"))}
"""Methods in forms in which they do something else."""
VARIANTS = [
    pytest.param(variant, id=" ".join([label(form), *sorted(trained(variant)), f"{count or ''}"]).strip())
    for name in known("methods")
    for count, form in enumerate((fitting(name), *FORMS.get(name, ())))
    for variant in dict.fromkeys(variants(form))
]
FROZEN_LLM = [param for param in VARIANTS if "llm" not in trained(param.values[0])]


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path / "cache", tiny_folder, seed=3)


# ---- the contract ----------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Unlearned:
    """What one call of a method did to a model that was lent to it."""

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    said: tuple[Tensor, Tensor]
    """Logits of texts before and after, without an instruction."""
    prompts: frozenset[str]
    """Every prompt that the model was given meanwhile."""
    references: int
    """How often the reference was loaded."""
    returned: VLM
    """The model after it was given back."""

    @property
    def moved(self) -> set[str]:
        """The names of the tensors that the method changed."""
        return changed(self.before, self.after)


Unlearn = Callable[[Any], Unlearned]


@pytest.fixture(scope="module")
def shared(benchmark: Benchmark, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """The request of all contract tests, whose cache they share as the trials of a study do."""
    return request_on(benchmark, tmp_path_factory.mktemp("contract") / "cache", tiny_folder, seed=3)


@pytest.fixture(scope="module")
def unlearn(shared: Request, tiny_folder: Path) -> Unlearn:
    """Calls a method, once however many tests look at what it did."""
    texts = [Group(None, (Prompt(x.prompt, (x.answer,)),)) for x in shared.split.lessons if x.picture is None][::40]

    @cache
    def unlearned(method: Any) -> Unlearned:
        loaded: list[VLM] = []

        def reference() -> VLM:
            loaded.append(shared.reference())
            return loaded[-1]

        torch.manual_seed(1)
        lent = fresh(tiny_folder)
        before, said = snapshot(lent), logits(lent, pack(lent, texts))
        lent._ids.clear()
        with borrowed(lent) as (vlm, _):
            answering = method(vlm, dataclasses.replace(shared, reference=reference)).with_instruction("")
            prompts = frozenset(prompt for prompt, _, _ in lent._ids)
            after, says = snapshot(vlm), logits(answering, pack(answering, texts))
        return Unlearned(before, after, (said, says), prompts, len(loaded), lent)

    return unlearned


@pytest.mark.parametrize("name", known("methods"))
def test_a_method_is_a_value(name: str) -> None:
    """Frozen, with a default for every field, equal by content, and fit for JSON and for another process."""
    method = find("methods", name)()
    assert dataclasses.is_dataclass(method)
    for field in dataclasses.fields(method):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, field.name, getattr(method, field.name))
    assert json.loads(json.dumps(canonical(method))) == canonical(method)
    assert pickle.loads(pickle.dumps(method)) == method == find("methods", name)()
    assert hash(method) == hash(find("methods", name)())
    assert name_of(method) == name


@pytest.mark.parametrize("name", known("methods"))
def test_every_field_is_in_the_key(name: str) -> None:
    """A result that depends on a field is never taken for that of another value."""
    method = find("methods", name)()
    keys = {content_key(method)}
    for field in dataclasses.fields(method):
        other = dataclasses.replace(method)
        object.__setattr__(other, field.name, "another value")
        keys.add(content_key(other))
    assert len(keys) == 1 + len(dataclasses.fields(method))


@pytest.mark.parametrize("method", VARIANTS)
def test_exactly_the_declared_parts_are_trained(method: Any, unlearn: Unlearn, tiny: VLM) -> None:
    """Every other tensor of the model is what it was, bit for bit."""
    moved = unlearn(method).moved
    assert moved <= set(tiny.trainable(tuple(trained(method)))) | {"lm_head.weight"}  # tied to the embedding
    assert {tiny.part_of(name) for name in moved} == trained(method)


@pytest.mark.parametrize("method", FROZEN_LLM)
def test_text_is_bit_identical_while_the_llm_is_frozen(method: Any, unlearn: Unlearn) -> None:
    before, after = unlearn(method).said
    assert torch.equal(after, before)


def test_text_changes_once_the_llm_is_trained(unlearn: Unlearn) -> None:
    """The test above could fail."""
    before, after = unlearn(quick(GradientAscent(trains=("llm",)))).said
    assert not torch.equal(after, before)


@pytest.mark.parametrize("method", VARIANTS)
def test_a_method_is_repeatable(method: Any, unlearn: Unlearn, tiny_folder: Path, shared: Request) -> None:
    """The same seed gives the same bits, another one gives others; the state of torch's generator does not matter."""
    found = [unlearn(method).after]
    for state, seed in ((2, shared.seed), (1, shared.seed + 5)):
        torch.manual_seed(state)
        vlm = fresh(tiny_folder)
        method(vlm, dataclasses.replace(shared, seed=seed))
        found.append(snapshot(vlm))
    assert same_bits(found[0], found[1])
    assert same_bits(found[0], found[2]) == (not trained(method))


@pytest.mark.parametrize("method", VARIANTS)
def test_what_is_lent_out_comes_back(method: Any, unlearn: Unlearn) -> None:
    ran = unlearn(method)
    assert same_bits(ran.before, ran.after) == (not trained(method))
    assert same_bits(ran.before, snapshot(ran.returned))
    assert not ran.returned.model.training
    assert not any(p.requires_grad or p.grad is not None for p in ran.returned.model.parameters())


@pytest.mark.parametrize("method", VARIANTS)
def test_no_method_trains_on_a_wording_that_is_held_for_the_audit(
    method: Any, unlearn: Unlearn, shared: Request
) -> None:
    """Whatever the model is asked while it unlearns is a lesson's prompt, or a lesson in a wording to train on."""
    known, mine = Wordings(shared.split), {x.prompt for x in (*shared.forget, *shared.retain)}
    asked = [q for q in shared.split.questions if q.task == "classification" and q.role in ("forget", "retain")]
    trainable, held_out = ({known.worded(q, w) for q in asked for w in family} for family in (TRAINABLE, HELD_OUT))
    prompts = unlearn(method).prompts - {""}  # of a picture alone
    assert prompts <= mine | trainable
    assert prompts or "llm" not in trained(method)
    assert held_out.isdisjoint(mine | trainable)


@pytest.mark.parametrize("method", VARIANTS)
def test_the_goal_full_works_too(
    method: Any, tiny: VLM, benchmark: Benchmark, tiny_folder: Path, shared: Request
) -> None:
    full = request_on(benchmark, shared.cache / "full", tiny_folder, goal="full")
    before = snapshot(tiny)
    unlearned = method(tiny, full)
    assert {tiny.part_of(name) for name in changed(before, snapshot(unlearned))} == trained(method)


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        (GradientDifference, "forget_weight", -0.5),
        (GradientDifference, "retain_weight", math.nan),
        (KLMinimization, "kl_weight", -1.5),
        (KLMinimization, "kl_weight", math.nan),
        (NPO, "beta", 0.0),
        (NPO, "beta", math.nan),
        (NPO, "retain_weight", -2.0),
        (NPO, "retain_weight", math.nan),
        (NPO, "variant", "published"),
        (GradientDifference, "variant", "published"),
        (KLMinimization, "variant", "published"),
        (SimNPO, "variant", "published"),
        *[(method, "modality", "sound") for method in (GradientAscent, GradientDifference, KLMinimization, NPO)],
        *[(method, "modality", "sound") for method in (PreferenceOptimization, SimNPO, RMU, UNDIAL, WGA, SatImp)],
        *[(method, "retain_weight", math.nan) for method in (PreferenceOptimization, SimNPO, UNDIAL, WGA, SatImp)],
        (PreferenceOptimization, "form", "rejection"),
        (PreferenceOptimization, "beta", 0.0),
        (SimNPO, "beta", 0.0),
        (SimNPO, "delta", -1.0),
        (SimNPO, "forget_weight", -1.0),
        (RMU, "coefficient", 0.0),
        (RMU, "alpha", -1.0),
        (UNDIAL, "gamma", -1.0),
        (WGA, "beta", -1.0),
        (SatImp, "saturation", -1.0),
        (SatImp, "importance", math.nan),
        (SatImp, "forget_weight", -0.1),
        (Prompting, "wording", "please"),
        (Prompting, "repeats", 0),
        (VKD, "variant", "published"),
        (VKD, "neurons", "some"),
        (VKD, "teacher", "nobody"),
        (VKD, "layers", "most"),
        (VKD, "distance", "far"),
        (VKD, "trains", ("vision", "llm")),
        (VKD, "trains", ()),
        (VKD, "erase_weight", -1.0),
        (VKD, "keep_weight", -1.0),
        (VKD, "forget_weight", math.nan),
        (VKD, "retain_weight", -0.1),
        (VKD, "saliency_threshold", -0.1),
        (VKD, "augment", 1.5),
        (VKD, "prune", 0.0),
        (VKD, "keep_ratio", 0),
        (VKD, "beta", -1.0),
    ],
)
def test_a_wrong_hyperparameter_is_named_with_its_value(method: Callable[..., Any], field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        method(**{field: value})
    assert f"{field}={value!r}" in str(caught.value)


# ---- the losses ------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Taken:
    """What a method asked the training loop to do, with the gradient of its loss at a point away from its start."""

    before: VLM
    now: VLM
    groups: list[list[Group]]
    loss: Tensor
    gradient: dict[str, Tensor]


def modules(method: object) -> tuple[str, ...]:
    """Where a method's batches are packed and its training loop is started."""
    return f"study.methods.{name_of(method)}", "study.methods._retaining"


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], list[list[Group]]]:
    """Keeps every batch that a method packs."""

    def kept(method: object) -> list[list[Group]]:
        groups: list[list[Group]] = []

        def record(vlm: VLM, asked: Sequence[Group]) -> Batch:
            groups.append(list(asked))
            return pack(vlm, asked)

        for module in modules(method):
            monkeypatch.setattr(f"{module}.pack", record, raising=False)
        return groups

    return kept


Take = Callable[..., Taken]


@pytest.fixture
def take(
    tiny: VLM,
    request_: Request,
    packed: Callable[[object], list[list[Group]]],
    monkeypatch: pytest.MonkeyPatch,
) -> Take:
    """Calls a method of which the loss of one step is taken after the weights were moved a little."""

    def taken(method: Any, request: Request = request_, step: int = 0) -> Taken:
        found: list[Taken] = []
        groups = packed(method)

        def once(
            vlm: VLM, parts: Sequence[Part], schedule: Schedule, loss: Callable[[int], Tensor], *, seed: int
        ) -> None:
            assert seed == request.seed
            shifted(vlm, parts)
            weights = vlm.trainable(parts)
            for weight in weights.values():
                weight.requires_grad_(True)
            value = loss(step)
            found.append(Taken(before, vlm, groups, value.detach(), gradient(value, weights)))

        before = twin(tiny)
        for module in modules(method):
            monkeypatch.setattr(f"{module}.train", once, raising=False)
        method(tiny, request)
        return found[0]

    return taken


def shifted(vlm: VLM, parts: Sequence[Part] = PARTS, seed: int = 7) -> VLM:
    """The model with every weight of `parts` moved a little, in place."""
    generator = torch.Generator().manual_seed(seed)
    for weight in vlm.trainable(parts).values():
        weight.data.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return vlm


def gradient(value: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient by name; zero where the value does not depend on a weight."""
    found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    return {n: torch.zeros_like(w) if g is None else g for (n, w), g in zip(weights.items(), found, strict=True)}


def batches(groups: Sequence[Sequence[Group]], request: Request) -> tuple[list[Group], list[Group]]:
    """The forget and the retain groups of batches of either kind; the latter are empty if there were none."""
    asked = {(lesson.picture, lesson.prompt) for lesson in request.forget}
    forget: list[Group] = []
    retain: list[Group] = []
    for batch in groups:
        gone = {(group.picture, prompt.text) in asked for group in batch for prompt in group.prompts}
        assert len(gone) == 1
        (forget if gone == {True} else retain).extend(batch)
    return forget, retain


def cross_entropy(vlm: VLM, groups: Sequence[Group]) -> Tensor:
    return -torch.cat(plain_logps(vlm, groups)).mean()


def check(taken: Taken, formula: Tensor, parts: Sequence[Part] = PARTS) -> None:
    torch.testing.assert_close(taken.loss, formula.detach(), rtol=1e-4, atol=1e-5)
    wanted = gradient(formula, taken.now.trainable(parts))
    assert taken.gradient.keys() == wanted.keys()
    assert max(float(g.abs().max()) for g in wanted.values()) > 1e-3
    for name, value in wanted.items():
        torch.testing.assert_close(taken.gradient[name], value, rtol=1e-3, atol=1e-5, msg=name)


SMALL = dataclasses.replace(QUICK, texts=0, lessons_per_picture=2)


def test_gradient_ascent_is_its_formula(take: Take, request_: Request) -> None:
    taken = take(quick(GradientAscent(), SMALL))
    forget, retain = batches(taken.groups, request_)
    assert not retain
    check(taken, -cross_entropy(taken.now, forget))


def test_gradient_difference_is_its_formula(take: Take, request_: Request) -> None:
    taken = take(quick(GradientDifference(forget_weight=0.3, retain_weight=2.0), SMALL))
    forget, retain = batches(taken.groups, request_)
    check(taken, 2.0 * cross_entropy(taken.now, retain) - 0.3 * cross_entropy(taken.now, forget))


def test_kl_minimization_is_its_formula(take: Take, request_: Request) -> None:
    """The divergence is that from the model before unlearning, over answer tokens and nothing else."""
    taken = take(quick(KLMinimization(kl_weight=3.0), SMALL))
    forget, retain = batches(taken.groups, request_)
    with torch.no_grad():
        vanilla = torch.cat([rows for rows, _ in plain_logits(taken.before, retain)]).softmax(-1)
    model = torch.cat([rows for rows, _ in plain_logits(taken.now, retain)]).log_softmax(-1)
    divergence = (vanilla * (vanilla.log() - model)).sum() / len(model)
    assert float(divergence.detach()) > 0.01
    check(taken, 3.0 * divergence - cross_entropy(taken.now, forget))


@pytest.mark.parametrize("retain_weight", [0.0, 0.7])
def test_npo_is_its_formula(take: Take, request_: Request, retain_weight: float) -> None:
    """Whole answers, log-probabilities summed, against the model before unlearning."""
    taken = take(quick(NPO(beta=0.4, retain_weight=retain_weight), SMALL))
    forget, retain = batches(taken.groups, request_)
    with torch.no_grad():
        before = torch.stack([logp.sum() for logp in plain_logps(taken.before, forget)])
    now = torch.stack([logp.sum() for logp in plain_logps(taken.now, forget)])
    formula = 2 / 0.4 * torch.log(1 + (now - before).exp() ** 0.4).mean()
    assert bool(retain) == bool(retain_weight)
    check(taken, formula + retain_weight * cross_entropy(taken.now, retain) if retain else formula)


def test_released_gradient_difference_alternates(take: Take, request_: Request) -> None:
    """A step of ascent, then as many of descent as the retain set is larger; each is its own formula."""
    method = quick(GradientDifference(0.3, 2.0, variant="released"), SMALL)
    times = len(request_.retain) // len(request_.forget)
    assert times > 1
    for step in (0, times + 1):
        taken = take(method, step=step)
        forget, retain = batches(taken.groups, request_)
        assert not retain
        check(taken, -0.3 * cross_entropy(taken.now, forget))
    for step in (1, times):
        taken = take(method, step=step)
        forget, retain = batches(taken.groups, request_)
        assert not forget
        check(taken, 2.0 * cross_entropy(taken.now, retain))


def test_released_gradient_difference_takes_turns_where_more_is_forgotten_than_kept(
    tiny: VLM, request_: Request, packed: Callable[[object], list[list[Group]]]
) -> None:
    method = quick(GradientDifference(variant="released"), dataclasses.replace(SMALL, steps=5))
    turned = exchanged(request_)
    groups = packed(method)
    method(tiny, turned)
    assert [bool(batches([batch], turned)[0]) for batch in groups] == [True, False, True, False, True]


def every_token(vlm: VLM, groups: Sequence[Group]) -> Tensor:
    """The logits at every token of packed groups, each asked by itself: what a group's questions share counts once."""
    found: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    for number, group in enumerate(groups):
        pixels = vlm.pixels([group.picture]).inputs(vlm.model.dtype) if group.picture else {}
        for ids in whole(vlm, group):
            rows = vlm.model(input_ids=torch.tensor([ids]), **pixels).logits[0]
            for place, row in enumerate(rows):
                found.setdefault((number, ids[: place + 1]), row)
    return torch.stack(list(found.values()))


def whole(vlm: VLM, group: Group) -> Iterator[tuple[int, ...]]:
    """The tokens of each question of a group with its answer."""
    for prompt in group.prompts:
        for answer in prompt.answers:
            asked = vlm.prompt_ids(prompt.text, group.picture is not None)
            yield (*asked, *vlm.answer_ids(prompt.text, group.picture is not None, answer), vlm.eos_id)


def test_released_kl_minimization_is_its_formula(take: Take, request_: Request) -> None:
    """The divergence is a mean over all tokens but padding, and the retain lessons are taught besides."""
    taken = take(quick(KLMinimization(kl_weight=3.0, variant="released"), SMALL))
    forget, retain = batches(taken.groups, request_)
    assert len({len(next(whole(taken.now, group))) for group in retain}) > 1  # one row is padded
    with torch.no_grad():
        vanilla = every_token(taken.before, retain).softmax(-1)
    model = every_token(taken.now, retain).log_softmax(-1)
    divergence = (vanilla * (vanilla.log() - model)).sum() / len(model)
    assert float(divergence.detach()) > 0.01
    check(taken, 3.0 * divergence + cross_entropy(taken.now, retain) - cross_entropy(taken.now, forget))


def test_released_npo_is_its_formula(take: Take, request_: Request, tiny_folder: Path) -> None:
    """A batch's mean cross-entropies against those of the reference, and nothing on the retain lessons."""
    oracle = shifted(fresh(tiny_folder), seed=3)
    request = dataclasses.replace(request_, reference=lambda: oracle)
    taken = take(quick(NPO(beta=0.4, retain_weight=2.0, variant="released"), SMALL), request)
    forget, retain = batches(taken.groups, request)
    assert not retain
    with torch.no_grad():
        reference = cross_entropy(oracle, forget)
    ratio = cross_entropy(taken.now, forget) - reference
    check(taken, -2 / 0.4 * torch.log(1 / (1 + torch.exp(-0.4 * ratio))))


def of_all_tokens(vlm: VLM, groups: Sequence[Group]) -> Tensor:
    """transformers' own loss with everything as label, of every question with its answer in a row of its own.

    So the collator of MLLMU-Bench has it, which masks padding alone; its mean is over the labels of a batch.
    """
    total, count = torch.zeros(()), 0
    for group in groups:
        pixels = vlm.pixels([group.picture]).inputs(vlm.model.dtype) if group.picture else {}
        for own in whole(vlm, group):
            ids = torch.tensor([own])
            total = total + vlm.model(input_ids=ids, labels=ids, **pixels).loss * (len(own) - 1)
            count += len(own) - 1
    return total / count


def test_all_tokens_can_be_labels_as_in_the_code_of_mllmu_bench(
    take: Take, request_: Request, tiny_folder: Path
) -> None:
    taken = take(quick(GradientAscent(labels="all"), SMALL))
    forget, _ = batches(taken.groups, request_)
    assert max(len(group.prompts) for group in forget) > 1  # a picture counts for each of its questions
    check(taken, -of_all_tokens(taken.now, forget))
    taken = take(quick(GradientDifference(0.3, 2.0, labels="all"), SMALL))
    forget, retain = batches(taken.groups, request_)
    check(taken, 2.0 * of_all_tokens(taken.now, retain) - 0.3 * of_all_tokens(taken.now, forget))
    taken = take(quick(KLMinimization(kl_weight=0.0, variant="released", labels="all"), SMALL))
    forget, retain = batches(taken.groups, request_)
    check(taken, of_all_tokens(taken.now, retain) - of_all_tokens(taken.now, forget))
    oracle = shifted(fresh(tiny_folder), seed=3)
    request = dataclasses.replace(request_, reference=lambda: oracle)
    taken = take(quick(NPO(beta=0.4, variant="released", labels="all"), SMALL), request)
    forget, _ = batches(taken.groups, request)
    with torch.no_grad():
        reference = of_all_tokens(oracle, forget)
    ratio = of_all_tokens(taken.now, forget) - reference
    check(taken, -2 / 0.4 * torch.log(1 / (1 + torch.exp(-0.4 * ratio))))


def test_labels_are_a_field_of_older_content_only_where_they_differ() -> None:
    for method in (GradientAscent, GradientDifference, KLMinimization):
        assert "labels" not in canonical(method())
        assert "labels" in canonical(method(labels="all"))
    with pytest.raises(ValueError, match="labels=all with variant=paper: it compares whole answers"):
        NPO(labels="all")


def test_whole_sets_are_gone_through_one_after_the_other(
    tiny: VLM, request_: Request, packed: Callable[[object], list[list[Group]]]
) -> None:
    """Ascent for as many of the steps as there are forget lessons among all, then descent."""
    method = quick(GradientDifference(variant="whole_sets"), dataclasses.replace(SMALL, steps=10))
    share = len(request_.forget) / (len(request_.forget) + len(request_.retain))
    groups = packed(method)
    method(tiny, request_)
    climbed = [bool(batches([batch], request_)[0]) for batch in groups]
    assert climbed == sorted(climbed, reverse=True)
    assert climbed.count(True) == max(1, round(10 * share)) < 10


def test_idk_is_its_formula(take: Take, request_: Request) -> None:
    """The forget questions are answered by refusals, and the retain questions as taught."""
    taken = take(quick(PreferenceOptimization(retain_weight=0.7), SMALL))
    forget, retain = batches(taken.groups, request_)
    said = [answer for group in forget for prompt in group.prompts for answer in prompt.answers]
    assert set(said) <= set(REFUSALS)
    assert len(set(said)) > 1
    assert not set(REFUSALS) & {answer for group in retain for prompt in group.prompts for answer in prompt.answers}
    check(taken, cross_entropy(taken.now, forget) + 0.7 * cross_entropy(taken.now, retain))


def test_dpo_is_its_formula(take: Take, request_: Request) -> None:
    """Refusal against answer, log-probabilities summed, each against the model before unlearning."""
    taken = take(quick(PreferenceOptimization("dpo", beta=0.4, retain_weight=0.7), SMALL))
    forget, retain = batches(taken.groups, request_)
    taught = {(lesson.picture, lesson.prompt, lesson.answer) for lesson in request_.forget}
    for group in forget:
        for prompt in group.prompts:
            refusal, answer = prompt.answers
            assert refusal in REFUSALS
            assert (group.picture, prompt.text, answer) in taught
    with torch.no_grad():
        before = torch.stack([logp.sum() for logp in plain_logps(taken.before, forget)])
    ratios = torch.stack([logp.sum() for logp in plain_logps(taken.now, forget)]) - before
    inner = 0.4 * (ratios[0::2] - ratios[1::2])
    formula = -2 / 0.4 * torch.log(1 / (1 + torch.exp(-inner))).mean()
    check(taken, formula + 0.7 * cross_entropy(taken.now, retain))


def test_refusals_are_seeded_and_drawn_anew(
    request_: Request, tiny_folder: Path, packed: Callable[[object], list[list[Group]]]
) -> None:
    def said(seed: int) -> list[str]:
        method = quick(PreferenceOptimization(retain_weight=0.0), dataclasses.replace(SMALL, steps=4))
        groups = packed(method)
        random.seed(seed)  # the global generator has no say
        method(fresh(tiny_folder), dataclasses.replace(request_, seed=seed // 10))
        return [p.answers[0] for batch in groups for group in batch for p in group.prompts]

    assert said(0) == said(1)
    assert said(0) != said(10)
    assert len(set(said(0))) > 4


def test_refusals_are_words_that_a_small_tokenizer_can_have() -> None:
    assert len(set(REFUSALS)) == len(REFUSALS) >= 10
    for refusal in REFUSALS:
        assert refusal[:-1].replace(" ", "").isalpha()
        assert refusal.endswith(".")


@pytest.mark.parametrize(("variant", "margin"), [("paper", 0.6), ("released", 0.6 * 0.4)])
def test_simnpo_is_its_formula(take: Take, request_: Request, variant: Any, margin: float) -> None:
    """Log-probabilities are means over an answer's tokens; the released code multiplies the margin by beta."""
    method = SimNPO(0.4, 0.6, forget_weight=0.3, retain_weight=0.7, variant=variant)
    taken = take(quick(method, dataclasses.replace(SMALL, lessons_per_picture=5)))
    forget, retain = batches(taken.groups, request_)
    means = torch.stack([logp.sum() / len(logp) for logp in plain_logps(taken.now, forget)])
    assert len({len(logp) for logp in plain_logps(taken.now, forget)}) > 1
    formula = -2 / 0.4 * torch.log(1 / (1 + torch.exp(0.4 * means + margin))).mean()
    check(taken, 0.3 * formula + 0.7 * cross_entropy(taken.now, retain))


@pytest.mark.parametrize("retain_weight", [0.0, 0.7])
def test_undial_is_its_formula(take: Take, request_: Request, retain_weight: float) -> None:
    """The adjusted distribution is that of the model before unlearning, at answer tokens and nowhere else."""
    taken = take(quick(UNDIAL(gamma=3.0, retain_weight=retain_weight), SMALL))
    forget, retain = batches(taken.groups, request_)
    with torch.no_grad():
        old = plain_logits(taken.before, forget)
        adjusted = torch.cat([rows - 3.0 * torch.eye(rows.shape[1])[tokens] for rows, tokens in old]).softmax(-1)
    model = torch.cat([rows for rows, _ in plain_logits(taken.now, forget)]).softmax(-1)
    formula = -(adjusted * model.log()).sum() / len(model)
    assert bool(retain) == bool(retain_weight)
    check(taken, formula + retain_weight * cross_entropy(taken.now, retain) if retain else formula)


@pytest.mark.parametrize(
    ("method", "powers", "weight"),
    [(WGA(beta=0.7, retain_weight=0.4), (0.7, 0.0), 1.0), (SatImp(0.7, 1.5, 0.3, 0.4), (0.7, 1.5), 0.3)],
)
def test_weighted_ascent_is_its_formula(
    method: Any, powers: tuple[float, float], weight: float, take: Take, request_: Request
) -> None:
    """The weights p^saturation (1 - p)^importance are constants: no gradient goes through them."""
    taken = take(quick(method, SMALL))
    forget, retain = batches(taken.groups, request_)
    logps = torch.cat(plain_logps(taken.now, forget))
    p = logps.detach().exp()
    formula = (p ** powers[0] * (1 - p) ** powers[1] * logps).mean()
    check(taken, weight * formula + 0.4 * cross_entropy(taken.now, retain))


def plain_states(vlm: VLM, groups: Sequence[Group]) -> Tensor:
    """What the first layer of the LLM says where each answer token is predicted, each answer asked by itself."""
    return torch.cat([said[:-1] for said in answer_states(vlm, groups)])


def answer_states(vlm: VLM, groups: Sequence[Group]) -> list[Tensor]:
    """What the first layer of the LLM says of each answer by itself, from the last token of its prompt."""
    found = []
    for group in groups:
        pixels = vlm.pixels([group.picture]).inputs(vlm.model.dtype) if group.picture else {}
        for ids, prompt in zip(whole(vlm, group), group.prompts, strict=True):
            out = vlm.model(input_ids=torch.tensor([ids]), **pixels, output_hidden_states=True)
            asked = len(vlm.prompt_ids(prompt.text, group.picture is not None))
            found.append(out.hidden_states[1][0, asked - 1 :])
    return found


@pytest.mark.parametrize("trains", [("llm",), ("vision", "projector")])
@pytest.mark.parametrize("layer", [0, -2])
def test_rmu_is_its_formula(take: Take, request_: Request, layer: int, trains: tuple[Part, ...]) -> None:
    """Means over tokens and width, where an answer token is predicted; the noise is fixed and not negative."""
    taken = take(quick(RMU(layer, coefficient=3.0, alpha=0.7, trains=trains), SMALL))
    forget, retain = batches(taken.groups, request_)
    noise = torch.rand(32, generator=torch.Generator().manual_seed(request_.seed))
    wanted = 3.0 * noise / noise.square().sum().sqrt()
    assert bool((wanted >= 0).all())
    with torch.no_grad():
        before = plain_states(taken.before, retain)
    formula = ((plain_states(taken.now, forget) - wanted) ** 2).mean()
    check(taken, formula + 0.7 * ((plain_states(taken.now, retain) - before) ** 2).mean(), trains)


def test_released_rmu_is_its_formula(take: Take, request_: Request) -> None:
    """At the answer tokens themselves, the mean over answers of the means over their tokens, as in open-unlearning."""

    def apart(said: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        assert len({len(one) for one in said}) > 1
        return torch.stack([((a[1:] - b) ** 2).mean() for a, b in zip(said, wanted, strict=True)]).mean()

    wide = dataclasses.replace(SMALL, lessons_per_picture=5)
    taken = take(quick(RMU(0, coefficient=3.0, alpha=0.7, variant="released"), wide))
    forget, retain = batches(taken.groups, request_)
    noise = torch.rand(32, generator=torch.Generator().manual_seed(request_.seed))
    steered = answer_states(taken.now, forget)
    with torch.no_grad():
        before = [said[1:] for said in answer_states(taken.before, retain)]
    formula = apart(steered, [3.0 * noise / noise.norm()] * len(steered))
    check(taken, formula + 0.7 * apart(answer_states(taken.now, retain), before), ("llm",))


def test_rmu_without_alpha_packs_no_retain_lesson(take: Take, request_: Request) -> None:
    assert not batches(take(quick(RMU(0, alpha=0.0), SMALL)).groups, request_)[1]


def test_a_layer_is_read_without_running_those_above_it(tiny: VLM, request_: Request) -> None:
    model: Any = tiny.model
    run: list[int] = []
    for module in (*model.model.language_model.layers, model.lm_head):
        module.register_forward_hook(lambda module, inputs, output: run.append(output.numel()))
    batch = pack(tiny, [Group(x.picture, (Prompt(x.prompt, (x.answer,)),)) for x in request_.forget[:3]])
    states(tiny, batch, 0)
    assert run == [batch.input_ids.numel() * 32]  # the first layer, and not the head


def test_the_states_of_the_last_layer_are_what_the_head_reads(tiny: VLM, request_: Request) -> None:
    """And the model is whole again after it was cut short, even if it was cut by an error."""
    model: Any = tiny.model
    layers = model.model.language_model.layers
    batch = pack(tiny, [Group(x.picture, (Prompt(x.prompt, (x.answer,)),)) for x in request_.forget[:3]])
    said = states(tiny, batch, -1)
    torch.testing.assert_close(model.lm_head(model.model.language_model.norm(said)), logits(tiny, batch))
    assert not torch.allclose(said, states(tiny, batch, 0))
    assert model.model.language_model.layers is layers
    with pytest.raises(TypeError, match="NoneType"):
        states(tiny, dataclasses.replace(batch, input_ids=None), 0)  # type: ignore[arg-type]
    assert model.model.language_model.layers is layers
    assert not any(layer._forward_hooks for layer in layers)


def test_an_llm_whose_norm_is_called_otherwise_is_refused(tiny: VLM, request_: Request) -> None:
    without_norm(tiny)
    with pytest.raises(Refused, match="the LLM of LlavaForConditionalGeneration has no final norm called norm"):
        quick(RMU(layer=0))(tiny, request_)


@pytest.mark.parametrize("layer", [2, 7, -3])
def test_a_layer_that_is_not_there_is_an_error(layer: int, tiny: VLM, request_: Request) -> None:
    before = snapshot(tiny)
    with pytest.raises(Refused, match=f"layer={layer}: the LLM has 2 layers"):
        quick(RMU(layer=layer))(tiny, request_)
    assert same_bits(before, snapshot(tiny))


def test_retraining_is_the_reference(tiny: VLM, request_: Request, tiny_folder: Path) -> None:
    oracle = shifted(fresh(tiny_folder), seed=3)
    assert Retrain()(tiny, dataclasses.replace(request_, reference=lambda: oracle)) is tiny
    assert same_bits(snapshot(tiny), snapshot(oracle))


SETTINGS = [fitting(name) for name in known("methods")]
SETTINGS += [
    with_layer(type(m)(variant=of)) for m in SETTINGS for of in get_args(get_type_hints(type(m)).get("variant"))
]


@pytest.mark.parametrize("method", dict.fromkeys(SETTINGS), ids=label)
def test_exactly_what_uses_the_reference_is_an_oracle(method: Any, unlearn: Unlearn) -> None:
    """A published setting or a released variant loads the reference if it says so, and never else."""
    assert bool(unlearn(quick(method)).references) == method.oracle


# ---- what is trained on --------------------------------------------------------------------------------------------
GRADIENT: tuple[Any, ...] = (
    GradientAscent(),
    GradientDifference(),
    GradientDifference(variant="released"),
    KLMinimization(),
    KLMinimization(variant="released"),
    NPO(),
    NPO(variant="released"),
    PreferenceOptimization(),
    PreferenceOptimization(form="dpo"),
    SimNPO(),
    RMU(layer=1),
    UNDIAL(retain_weight=1.0),
    WGA(),
    SatImp(),
)


@pytest.mark.parametrize("method", GRADIENT, ids=label)
@pytest.mark.parametrize("modality", ["text", "image_text", "all"])
def test_a_method_trains_on_the_lessons_of_its_modality(
    method: Any,
    modality: Any,
    tiny: VLM,
    benchmark: Benchmark,
    tiny_folder: Path,
    tmp_path: Path,
    packed: Callable[[object], list[list[Group]]],
) -> None:
    request = request_on(benchmark, tmp_path, tiny_folder, goal="full")
    groups = packed(method)
    before = snapshot(tiny)
    quick(method, modality=modality, trains=PARTS)(tiny, request)
    pictured = {group.picture is not None for batch in groups for group in batch}
    assert pictured == {"text": {False}, "image_text": {True}, "all": {True, False}}[modality]
    forget, retain = batches(groups, request)
    assert forget
    assert bool(retain) == (not isinstance(method, GradientAscent) and not method.oracle)
    seen = {tiny.part_of(name) for name in changed(before, snapshot(tiny))}
    assert seen == ({"llm"} if modality == "text" else set(PARTS))


@pytest.mark.parametrize("method", GRADIENT, ids=label)
def test_text_has_nothing_to_forget_under_the_visual_goal(method: Any, tiny: VLM, request_: Request) -> None:
    with pytest.raises(Refused, match="modality='text': under the goal 'visual'"):
        quick(method, modality="text")(tiny, request_)


def exchanged(request: Request) -> Request:
    """The request turned round: what was to be kept is to be forgotten."""
    people = {lesson.person for lesson in request.retain}
    return dataclasses.replace(request, split=dataclasses.replace(request.split, forget_people=frozenset(people)))


def one_person(request: Request) -> Request:
    """The request for a single person of whom one lesson is to be forgotten, and one of each of the others kept."""
    people = sorted(request.split.forget_people)[:1]
    first: dict[str, Lesson] = {}
    for lesson in request.split.lessons:
        if lesson.picture is not None:
            first.setdefault(lesson.person, lesson)
    split = dataclasses.replace(request.split, forget_people=frozenset(people), lessons=tuple(first.values()))
    return dataclasses.replace(request, split=split)


@pytest.mark.parametrize("method", GRADIENT, ids=label)
@pytest.mark.parametrize("changing", [exchanged, one_person])
def test_a_forget_set_of_any_size_works(
    method: Any, changing: Callable[[Request], Request], tiny: VLM, request_: Request
) -> None:
    """Larger than the retain set, or one lesson, and a batch larger than either."""
    request = changing(request_)
    if changing is exchanged:
        assert len(request.forget) > len(request.retain)
    else:
        assert len(request.forget) == 1
    before = snapshot(tiny)
    quick(method, dataclasses.replace(SMALL, pictures=50, lessons_per_picture=1))(tiny, request)
    assert {tiny.part_of(name) for name in changed(before, snapshot(tiny))} == trained(method)


@pytest.mark.parametrize("method", [NPO, KLMinimization, UNDIAL, RMU, PreferenceOptimization])
@pytest.mark.parametrize("trains", [PARTS, ("projector",)])
def test_the_model_before_unlearning_does_not_move(
    method: Any, trains: tuple[Part, ...], tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frozen copy has vanilla's bits until the last step."""
    copies: list[VLM] = []
    frozen_copy = VLM.frozen_copy

    def kept(self: VLM, parts: Sequence[Part] = PARTS) -> VLM:
        copies.append(frozen_copy(self, parts))
        return copies[-1]

    own: dict[Any, dict[str, Any]] = {RMU: {"layer": 1}, PreferenceOptimization: {"form": "dpo"}}
    monkeypatch.setattr(VLM, "frozen_copy", kept)
    before = snapshot(tiny)
    quick(method(trains=trains, **own.get(method, {})))(tiny, request_)
    assert len(copies) == 1
    assert same_bits(before, snapshot(copies[0]))
    assert not same_bits(before, snapshot(tiny))


@pytest.fixture(scope="module")
def taught(tiny_folder: Path, benchmark: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> VLM:
    """A model that knows what is to be forgotten: methods that spare the unlikely have something to do."""
    vlm = fresh(tiny_folder)
    schedule = Schedule(steps=150, learning_rate=1e-2, pictures=4, lessons_per_picture=8)
    lessons = Lessons(request_on(benchmark, tmp_path_factory.mktemp("cache"), tiny_folder).forget, schedule, 0)
    train(vlm, PARTS, schedule, lambda step: likelihood.cross_entropy(vlm, pack(vlm, lessons.draw())))
    return vlm


@pytest.mark.parametrize("method", GRADIENT, ids=label)
def test_the_forget_loss_rises(method: Any, taught: VLM, request_: Request) -> None:
    """By what is done to the forget lessons alone."""
    alone = {"retain_weight": 0.0} if hasattr(method, "retain_weight") else {"kl_weight": 0.0}
    settings = {name: value for name, value in alone.items() if hasattr(method, name)}
    groups = [Group(x.picture, (Prompt(x.prompt, (x.answer,)),)) for x in request_.forget[::20]]
    with borrowed(taught) as (vlm, _):
        before = float(cross_entropy(vlm, groups))
        assert before < 1
        quick(method, dataclasses.replace(QUICK, steps=10, learning_rate=3e-3), **settings)(vlm, request_)
        assert float(cross_entropy(vlm, groups)) > before + 0.1


def test_no_method_is_the_identity(tiny: VLM, request_: Request) -> None:
    assert NoMethod()(tiny, request_) is tiny


@pytest.mark.parametrize("wording", list(INSTRUCTIONS))
def test_prompting_instructs_and_changes_no_weight(wording: Any, tiny: VLM, request_: Request) -> None:
    """The instruction stands in front of every prompt; dropping it gives everything back."""
    instructed = Prompting(wording, repeats=2)(tiny, request_)
    assert instructed.model is tiny.model
    said = INSTRUCTIONS[Prompting(wording).wording]
    assert instructed.instruction == f"{said} {said}"
    assert len(instructed.prompt_ids("Who is this person?", True)) > len(tiny.prompt_ids("Who is this person?", True))
    dropped = instructed.with_instruction("")
    assert dropped.prompt_ids("Who is this person?", True) == tiny.prompt_ids("Who is this person?", True)
