"""Visual knowledge distillation in both forms: losses, teachers, masks, and the LLM that neither touches."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from study.contracts import Request
from study.core.errors import Refused
from study.core.hashing import content_key
from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark
from study.data.picture import Picture
from study.methods import _saliency, vkd
from study.methods._features import Layers
from study.methods.vkd import VKD, Neurons, Teacher, pruned
from study.model.vision import Features
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.losses import Distance
from study.training.schedule import Schedule
from tests.helpers.small import changed, fresh, plain_logps, request_on, same_bits, snapshot, twin

SHORT = Schedule(steps=2, learning_rate=1e-3, pictures=4, lessons_per_picture=2)


@pytest.fixture(autouse=True)
def _few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_saliency, "BATCHES", 3)


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    """Two people with two pictures each are forgotten, eighteen with two pictures each are kept."""
    return request_on(benchmark, tmp_path / "cache", tiny_folder)


def method(**fields: Any) -> VKD:
    """Features alone."""
    return described(**{"variant": "features", **fields})


def described(**fields: Any) -> VKD:
    return VKD(**{"schedule": SHORT, **fields})


def streams(request: Request, schedule: Schedule = SHORT) -> tuple[Lessons, Lessons]:
    return Lessons(request.forget, schedule, request.seed), Lessons(request.retain, schedule, request.seed + 1)


def first_loss(
    vkd_: VKD, vlm: VLM, request: Request, monkeypatch: pytest.MonkeyPatch, *, move: float = 0.0
) -> tuple[float, VLM]:
    """The loss of the first step and the model that it starts from, after moving the visual weights by noise."""
    found: list[float] = []
    before = twin(vlm)

    def once(vlm: VLM, parts: Sequence[Part], schedule: Schedule, loss: Callable[[int], Tensor], **_: Any) -> None:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in vlm.trainable(("vision", "projector")).values():
                weight.add_(move * torch.randn(weight.shape, generator=generator))
            found.append(float(loss(0)))

    monkeypatch.setattr(vkd, "train", once)
    vkd_(vlm, request)
    return found[0], before


def states(vlm: VLM, pictures: Sequence[Picture]) -> tuple[list[Tensor], Tensor]:
    """The vision tower's layers and the projector's output, straight from the modules."""
    model: Any = vlm.model.model
    with torch.no_grad():
        hidden = model.vision_tower(**vlm.pixels(pictures).tensors, output_hidden_states=True).hidden_states
        projected = model.multi_modal_projector(hidden[-1][:, 1:])
    return list(hidden[1:]), projected


def distance(student: Tensor, teacher: Tensor, how: str) -> float:
    teacher = teacher.expand_as(student)
    if how == "cosine":
        unit = [x / x.norm(dim=-1, keepdim=True) for x in (student, teacher)]
        return 1 - float((unit[0] * unit[1]).sum(-1).mean())
    return float((student - teacher).square().mean() / (teacher - teacher.mean()).square().mean())


# ---- the variants ----------------------------------------------------------------------------------------------
def test_a_variant_decides_what_is_not_set() -> None:
    terms = ("forget_weight", "retain_weight", "saliency_threshold")
    assert [getattr(VKD(), name) for name in terms] == [1.0, 1.0, 1.0]
    assert [getattr(VKD(variant="features"), name) for name in terms] == [0.0, 0.0, 0.0]
    assert (VKD().teacher, VKD(variant="features").teacher) == ("base", "stranger")
    assert VKD(forget_weight=0.0, teacher="pruned") == VKD("described", "pruned", forget_weight=0.0)
    assert replace(VKD(variant="features"), keep_weight=2.0) == VKD(variant="features", keep_weight=2.0)


@pytest.mark.parametrize(
    ("field", "value", "none"),
    [
        ("forget_weight", 0.5, "0.0"),
        ("retain_weight", 0.5, "0.0"),
        ("saliency_threshold", 0.5, "0.0"),
        ("neurons", "pruned", "all"),
    ],
)
def test_features_are_alone(field: str, value: object, none: str) -> None:
    """A value from the other form is not taken along under the wrong name either."""
    with pytest.raises(ValueError, match=f"{field}={value!r}: .*set {field}={none}, or variant='described'"):
        method(**{field: value})
    with pytest.raises(ValueError, match=r"forget_weight=1\.0: variant='features'"):
        replace(described(), variant="features")


def test_features_have_the_key_that_they_had_before_there_were_variants() -> None:
    """Of the class's default, as trials of older studies are named by it."""
    assert content_key(VKD(variant="features")) == "4bc60964a3ab"
    assert len({content_key(VKD(neurons=how)) for how in get_args(Neurons)} | {content_key(VKD("features"))}) == 3


@pytest.mark.parametrize("fields", [{}, {"saliency_threshold": 0.0, "neurons": "pruned"}])
def test_adapters_are_refused_behind_a_mask(fields: dict[str, Any], tiny: VLM, request_: Request) -> None:
    """Before anything starts, with what to set instead; without a mask they are trained in both forms."""
    adapters = replace(SHORT, lora_rank=2)
    with pytest.raises(ValueError, match=r"lora_rank=2: .*lora_rank=0, or saliency_threshold=0 and neurons=all"):
        described(**fields, schedule=adapters)
    for free in (described(saliency_threshold=0.0, schedule=adapters), method(schedule=adapters)):
        before = snapshot(tiny)
        free(tiny, request_)
        assert {tiny.part_of(name) for name in changed(before, snapshot(tiny))} == {"vision", "projector"}


# ---- the loss --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layers", get_args(Layers))
@pytest.mark.parametrize("how", get_args(Distance))
def test_the_loss_is_its_formula(
    layers: Any, how: Any, tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erase towards the mean of strangers, keep towards vanilla: one round of all pictures, so order is no matter."""
    weighted = method(teacher="strangers_mean", layers=layers, distance=how, erase_weight=0.7, keep_weight=3.0,
                      augment=0.0, keep_ratio=9)  # fmt: skip
    loss, before = first_loss(weighted, tiny, request_, monkeypatch, move=0.02)
    forget, retain = streams(request_)
    gone, kept = list(forget.by_picture), list(retain.by_picture)
    assert (len(gone), len(kept)) == (4, 36)
    chosen = {"all": [0, 1], "last_half": [1], "last": [1], "projector": []}[layers]
    strangers, strangers_projected = states(before, request_.strangers)
    wanted = 0.0
    for weight, pictures, stranger in ((0.7, gone, True), (3.0, kept, False)):
        student, projected = states(tiny, pictures)
        teacher, teacher_projected = (strangers, strangers_projected) if stranger else states(before, pictures)
        if stranger:
            teacher, teacher_projected = [t.mean(0, keepdim=True) for t in teacher], teacher_projected.mean(0, True)
        wanted += weight * distance(projected, teacher_projected, how)
        wanted += sum(weight * distance(student[i], teacher[i], how) / len(chosen) for i in chosen)
    assert wanted > 0.05
    assert loss == pytest.approx(wanted, rel=1e-2 if how == "mse" else 1e-4)  # mse: variance of N or of N - 1


def test_the_losses_on_answers_are_their_formulas(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is described adds to the distances NPO against vanilla and the cross-entropy, on what is drawn for them."""
    whole = described(forget_weight=0.7, retain_weight=3.0, beta=0.4, augment=0.0)
    found = first_loss(whole, tiny, request_, monkeypatch, move=0.02)
    distances = replace(whole, forget_weight=0.0, retain_weight=0.0)
    alone = first_loss(distances, twin(found[1]), request_, monkeypatch, move=0.02)[0]
    assert alone > 0.01
    forget, retain = streams(request_)
    forget.draw_pictures(SHORT.pictures)
    retain.draw_pictures(2 * SHORT.pictures)
    now, vanilla = (plain_logps(vlm, groups) for vlm, groups in zip((tiny, found[1]), [forget.draw()] * 2, strict=True))
    ratios = [float(a.sum() - b.sum()) for a, b in zip(now, vanilla, strict=True)]
    npo = 2 / 0.4 * sum(math.log1p(math.exp(0.4 * ratio)) for ratio in ratios) / len(ratios)
    entropy = -float(torch.cat(plain_logps(tiny, retain.draw())).mean())
    assert npo > 1
    assert entropy > 1
    assert found[0] == pytest.approx(alone + 0.7 * npo + 3.0 * entropy, rel=1e-4)


@pytest.mark.parametrize("move", [0.0, 0.05, 0.5])
def test_the_forget_term_is_bounded(move: float, tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far the model goes it pays no less than 0; at its start 2 / beta log 2, the same for every answer."""
    forget = described(retain_weight=0.0, erase_weight=0.0, keep_weight=0.0)
    loss = first_loss(forget, tiny, request_, monkeypatch, move=move)[0]
    assert loss > 0
    assert (loss == pytest.approx(2 / forget.beta * math.log(2))) == (move == 0)


@pytest.mark.parametrize("how", get_args(Distance))
@pytest.mark.parametrize("augment", [0.0, 0.5, 1.0])
def test_nothing_is_to_be_kept_back_at_the_start(
    how: Any, augment: float, tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student that equals its teacher is at distance 0, of changed pictures too; one that moved is not."""
    keep = method(erase_weight=0.0, keep_weight=1.0, augment=augment, distance=how)
    assert first_loss(keep, tiny, request_, monkeypatch)[0] == pytest.approx(0.0, abs=1e-6)
    assert first_loss(keep, tiny, request_, monkeypatch, move=0.05)[0] > 1e-3


def test_the_base_model_as_teacher_sees_what_the_student_sees(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here base is vanilla, so there is nothing to erase; towards strangers there is."""
    erase = method(erase_weight=1.0, keep_weight=0.0, augment=0.5, teacher="base")
    assert first_loss(erase, tiny, request_, monkeypatch)[0] == pytest.approx(0.0, abs=1e-6)
    assert first_loss(replace(erase, teacher="stranger"), tiny, request_, monkeypatch)[0] > 0.1


@pytest.mark.parametrize("field", ["forget_weight", "retain_weight"])
def test_the_llm_is_called_for_losses_on_outputs_alone(field: str, tiny: VLM, request_: Request) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("the LLM was called")

    model: Any = tiny.model.model
    model.language_model.forward = forbidden
    for teacher in ("strangers_mean", "stranger", "other_person", "base", "reference"):
        method(teacher=teacher)(tiny, request_)
    off = described(forget_weight=0.0, retain_weight=0.0, saliency_threshold=0.0)
    off(tiny, request_)
    with pytest.raises(AssertionError, match="the LLM was called"):
        replace(off, **{field: 0.5})(tiny, request_)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["forget_weight", "retain_weight"])
def test_losses_on_outputs_reach_the_visual_module(field: str, tiny: VLM, request_: Request) -> None:
    """With every distance switched off they alone move it, and with them off nothing moves."""
    off = described(**dict.fromkeys(("erase_weight", "keep_weight", "forget_weight", "retain_weight"), 0.0))
    before = snapshot(tiny)
    off(tiny, request_)
    assert same_bits(before, snapshot(tiny))
    replace(off, **{field: 1.0})(tiny, request_)  # type: ignore[arg-type]
    assert {tiny.part_of(name) for name in changed(before, snapshot(tiny))} == {"vision", "projector"}


# ---- teachers --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("teacher", get_args(Teacher))
def test_every_teacher_works(teacher: Any, tiny: VLM, request_: Request) -> None:
    before = snapshot(tiny)
    other = twin(tiny)
    for weight in other.trainable(("vision", "projector")).values():
        weight.data.mul_(1.1)
    method(teacher=teacher)(tiny, replace(request_, base=lambda: other, reference=lambda: other))
    moved = changed(before, snapshot(tiny))
    assert {tiny.part_of(name) for name in moved} == {"vision", "projector"}


@pytest.mark.parametrize("teacher", ["base", "reference"])
def test_other_models_are_loaded_only_when_they_teach(teacher: Any, tiny: VLM, request_: Request) -> None:
    asked: list[str] = []

    def loader(name: str) -> Callable[[], VLM]:
        def call() -> VLM:
            asked.append(name)
            return twin(tiny)

        return call

    watched = replace(request_, base=loader("base"), reference=loader("reference"))
    for other in get_args(Teacher):
        if other not in ("base", "reference"):
            method(teacher=other)(tiny, watched)
    assert asked == []
    method(teacher=teacher)(tiny, watched)
    assert asked == [teacher]


@pytest.mark.parametrize("teacher", ["base", "reference"])
def test_of_another_model_only_what_it_sees_stays_in_memory(teacher: Any, tiny: VLM, request_: Request) -> None:
    """The features are its own, bit for bit; the model itself is let go, and its LLM with it."""
    (forget, retain), made = streams(request_), [twin(tiny)]
    for weight in made[0].trainable(PARTS).values():
        weight.data.mul_(1.1)
    pictures = forget.draw_pictures(4)
    wanted, gone = made[0].features(tiny.pixels(pictures)), weakref.ref(made[0].model)
    loading = replace(request_, base=made.pop, reference=made.pop)
    teach = method(teacher=teacher)._teacher(tiny, loading, forget, retain)
    gc.collect()
    assert gone() is None
    found = teach(pictures, tiny.pixels(pictures))
    for ours, theirs in zip((*found.layers, found.projected), (*wanted.layers, wanted.projected), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(found.projected, tiny.features(tiny.pixels(pictures)).projected)


@pytest.mark.parametrize("teacher", ["strangers_mean", "stranger"])
def test_without_strangers_the_remedy_is_named(teacher: Any, tiny: VLM, request_: Request) -> None:
    with pytest.raises(Refused, match=f"teacher='{teacher}'.*Strangers folder.*teacher='other_person'"):
        method(teacher=teacher)(tiny, replace(request_, strangers=()))
    method(teacher="other_person")(tiny, replace(request_, strangers=()))


def test_each_forget_person_has_one_stranger(tiny: VLM, request_: Request) -> None:
    """Their own, whichever picture and whenever it is asked for; another seed deals others."""
    dealt = []
    for seed in range(4):
        seeded = replace(request_, seed=seed)
        forget, retain = streams(seeded)
        teach = method(teacher="stranger")._teacher(tiny, seeded, forget, retain)
        strangers, _ = states(tiny, request_.strangers)
        own: dict[str, set[int]] = {}
        for _ in range(3):
            pictures = forget.draw_pictures(4)
            taught = teach(pictures, tiny.pixels(pictures)).layers[-1]
            for picture, target in zip(pictures, taught, strict=True):
                near = [i for i, s in enumerate(strangers[-1]) if torch.allclose(s, target, atol=1e-6)]
                own.setdefault(forget.person_of(picture), set()).update(near)
        assert own.keys() == request_.split.forget_people
        assert [len(indices) for indices in own.values()] == [1, 1]
        assert len(set.union(*own.values())) == 2
        dealt.append(sorted((person, *indices) for person, indices in own.items()))
    assert any(other != dealt[0] for other in dealt[1:])


def test_each_forget_person_has_one_other_person(tiny: VLM, request_: Request) -> None:
    """Somebody to be kept, seen in any of their pictures."""
    forget, retain = streams(request_)
    teach = method(teacher="other_person")._teacher(tiny, request_, forget, retain)
    known = [(person, picture) for person, album in retain.albums().items() for picture in album]
    layers, _ = states(tiny, [picture for _, picture in known])
    own: dict[str, set[str]] = {}
    for _ in range(4):
        pictures = forget.draw_pictures(4)
        for picture, target in zip(pictures, teach(pictures, tiny.pixels(pictures)).layers[-1], strict=True):
            near = {known[i][0] for i, layer in enumerate(layers[-1]) if torch.allclose(layer, target, atol=1e-6)}
            own.setdefault(forget.person_of(picture), set()).update(near)
    assert [len(people) for people in own.values()] == [1, 1]
    assert len(set.union(*own.values())) == 2


def test_more_forget_people_than_strangers_share(tiny: VLM, request_: Request) -> None:
    (forget, retain), only = streams(request_), replace(request_, strangers=request_.strangers[:1])
    teach = method(teacher="stranger")._teacher(tiny, only, forget, retain)
    pictures = list(forget.by_picture)
    assert {forget.person_of(picture) for picture in pictures} == request_.split.forget_people
    taught, (stranger, _) = teach(pictures, tiny.pixels(pictures)), states(tiny, only.strangers)
    for ours, theirs in zip(taught.layers, stranger, strict=True):
        torch.testing.assert_close(ours, theirs.expand_as(ours), rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_pruned_teacher_lacks_the_stated_share(share: float, tiny: VLM, request_: Request) -> None:
    """Of each layer's neurons the given share has no input left; nothing else differs and vanilla is untouched."""
    before = snapshot(tiny)
    teacher = snapshot(pruned(tiny, request_, share))
    assert same_bits(before, snapshot(tiny))
    ends = (".mlp.fc1.weight", ".mlp.fc1.bias", ".mlp.fc2.weight")  # the biases are 0 before as well
    assert changed(before, teacher) <= {name for name in before if name.endswith(ends)}
    ratios = _saliency.saliency(tiny, request_, ("vision",))
    weights = [name for name in before if name.endswith("fc1.weight")]
    assert len(weights) == 2
    for name in weights:
        gone = teacher[name].eq(0).all(1) & teacher[name.removesuffix("weight") + "bias"].eq(0)
        assert int(gone.sum()) == round(share * len(gone))
        assert torch.equal(teacher[name][~gone], before[name][~gone])
        out = name.replace("fc1", "fc2")
        assert torch.equal(teacher[out].eq(0).all(0), gone)
        assert torch.equal(teacher[out][:, ~gone], before[out][:, ~gone])
        scores = ratios[name].log().sum(1)
        assert float(scores[gone].min()) > float(scores[~gone].max())


# ---- the mask --------------------------------------------------------------------------------------------------
def ratios(vlm: VLM, request: Request) -> Mapping[str, Tensor]:
    return _saliency.saliency(vlm, request, ("vision", "projector"))


@pytest.mark.parametrize("unmasked", [method(), described(saliency_threshold=0.0)])
def test_a_threshold_of_zero_trains_everything(unmasked: VKD, tiny: VLM, request_: Request) -> None:
    before = snapshot(tiny)
    unmasked(tiny, request_)
    moved = changed(before, snapshot(tiny))
    assert moved == set(tiny.trainable(("vision", "projector")))
    assert not request_.cache.exists()  # and computes no saliency


@pytest.mark.parametrize("neurons", get_args(Neurons))
def test_masked_entries_keep_their_bits(neurons: Any, tiny: VLM, request_: Request) -> None:
    """Of what is free, nearly everything moves; with `pruned` neurons no more is free than their weights."""
    found = ratios(tiny, request_)
    threshold = float(torch.cat([ratio.flatten() for ratio in found.values()]).median())
    free = {name: ratio >= threshold for name, ratio in found.items()}
    if neurons == "pruned":
        free = {name: free[name] & mask for name, mask in own_weights(tiny, found, 0.25).items()}
    before = snapshot(tiny)
    described(saliency_threshold=threshold, neurons=neurons, prune=0.25)(tiny, request_)
    after = snapshot(tiny)
    assert changed(before, after) <= set(free)
    moved = {name: before[name].view(torch.int32) != after[name].view(torch.int32) for name in free}
    for name, differs in moved.items():
        assert not bool((differs & ~free[name]).any()), name
    many, total = (sum(int(mask.sum()) for mask in free.values()), sum(ratio.numel() for ratio in found.values()))
    assert sum(int(differs.sum()) for differs in moved.values()) > 0.9 * many
    assert (0.4 if neurons == "all" else 0.05) * total < many < (0.6 if neurons == "all" else 0.25) * total


def own_weights(vlm: VLM, ratios: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Where the weights of the neurons with the highest scores are, by the names of LLaVA's layers."""
    found: dict[str, Tensor] = {}
    for name in vlm.trainable(("vision", "projector")):
        for into, out in (("fc1", "fc2"), ("linear_1", "linear_2")):
            if not name.endswith(f"{into}.weight"):
                continue
            scores = ratios[name].log().sum(1)
            best = scores >= scores.sort(descending=True).values[round(share * len(scores)) - 1]
            found[name] = best[:, None].expand_as(ratios[name])
            found[name.replace("weight", "bias")] = best
            after = name.replace(into, out)
            found[after] = best[None].expand_as(ratios[after])
    assert len(found) == 3 * 3
    return found


def test_the_pruned_neurons_alone_are_trained(tiny: VLM, request_: Request) -> None:
    """Those that the pruned teacher lacks: into and out of all others, and of all other layers, no bit changes."""
    before = snapshot(tiny)
    allowed = own_weights(tiny, ratios(tiny, request_), 0.1)
    described(saliency_threshold=0.0, neurons="pruned")(tiny, request_)
    after = snapshot(tiny)
    assert changed(before, after) == set(allowed)
    for name, mask in allowed.items():
        assert not bool(((before[name] != after[name]) & ~mask).any()), name


def test_a_threshold_above_every_ratio_is_refused_with_the_largest(tiny: VLM, request_: Request) -> None:
    before = snapshot(tiny)
    largest = max(float(ratio.max()) for ratio in ratios(tiny, request_).values())
    with pytest.raises(Refused, match=r"saliency_threshold=1e\+30 selects no weight") as caught:
        described(saliency_threshold=1e30)(tiny, request_)
    assert f"{largest:.4g}" in str(caught.value)
    assert same_bits(before, snapshot(tiny))


@pytest.mark.parametrize("damage", ["weights", "digest", "half written"])
def test_damaged_saliency_is_rebuilt(damage: str, tiny: VLM, request_: Request) -> None:
    """Such as what a reader sees while another worker is between writing the weights and their digest."""
    first = ratios(tiny, request_)
    (weights,) = request_.cache.glob("*.safetensors")
    (digest,) = request_.cache.glob("*.sha256.json")
    if damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-8])
    elif damage == "digest":
        digest.write_text("{")
    else:
        digest.unlink()
    assert same_bits(first, ratios(tiny, request_))
    assert same_bits(first, ratios(tiny, request_))


def test_strangers_are_encoded_a_few_at_a_time(tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same result, and without a graph."""
    made = {}
    for at_once in (3, 100):
        monkeypatch.setattr(vkd, "AT_ONCE", at_once)
        mean = vkd._mean_features(tiny, request_.strangers)
        assert len(next(vkd._chunks(tiny, request_.strangers)).projected) == min(at_once, 8)
        assert not mean.projected.requires_grad
        made[at_once] = mean
    torch.testing.assert_close(made[3].projected, made[100].projected)
    torch.testing.assert_close(made[3].layers[0], made[100].layers[0])


def test_no_more_features_are_kept_than_there_is_room_for(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = streams(request_)[1].draw_pictures(6)
    keys: list[str | None] = [picture.key for picture in pictures]
    wanted = tiny.features(tiny.pixels(pictures))
    one = sum(tensor[0].nbytes for tensor in (*wanted.layers, wanted.projected))
    monkeypatch.setattr(vkd, "FEATURE_BYTES", 4 * one)
    cache: dict[str, Features] = {}
    for _ in range(2):
        found = vkd._cached_features(tiny, tiny.pixels(pictures), keys, cache)
        torch.testing.assert_close(found.projected, wanted.projected)
        assert list(cache) == keys[:4]


def test_cached_features_are_the_features(tiny: VLM, request_: Request) -> None:
    """In the order asked for, whatever of them was there already; augmented pictures are never kept."""
    pictures = streams(request_)[1].draw_pictures(6)
    cache: dict[str, Features] = {}
    with torch.no_grad():
        for asked in ([0, 1], [2, 1, 3], [5, 0, 4, 2]):
            pixels = tiny.pixels([pictures[i] for i in asked])
            keys = [pictures[i].key if i != 4 else None for i in asked]
            found, wanted = vkd._cached_features(tiny, pixels, keys, cache), tiny.features(pixels)
            for ours, theirs in zip((*found.layers, found.projected), (*wanted.layers, wanted.projected), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert cache.keys() == {pictures[i].key for i in (0, 1, 2, 3, 5)}


def test_the_vision_tower_alone_can_be_trained_with_a_mask(tiny_folder: Path, request_: Request) -> None:
    for part in ("vision", "projector"):
        vlm = fresh(tiny_folder)
        before = snapshot(vlm)
        described(trains=(part,), saliency_threshold=0.1)(vlm, request_)
        assert {vlm.part_of(name) for name in changed(before, snapshot(vlm))} == {part}
