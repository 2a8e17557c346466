"""Saliency is the mean squared gradient of the very batches it draws, made once and cut anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from study.contracts import Request
from study.core.errors import Refused
from study.core.hashing import content_key
from study.core.terms import Part
from study.data.benchmark import Benchmark, Lesson
from study.methods import _saliency as module
from study.methods._saliency import EPSILON, masks, saliency, squared_gradients
from study.model.packing import logits, pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.schedule import Schedule

VISUAL: tuple[Part, ...] = ("vision", "projector")


def never() -> VLM:
    raise AssertionError("saliency needs no other model")


@pytest.fixture(autouse=True)
def few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCHES", 3)


@pytest.fixture
def request_(benchmark: Benchmark, tmp_path: Path) -> Request:
    return Request(benchmark.split(10), "visual", benchmark.strangers, 0, tmp_path / "cache", never, never, dict)


def by_hand(vlm: VLM, parts: tuple[Part, ...], lessons: tuple[Lesson, ...], seed: int) -> dict[str, Tensor]:
    """One backward pass a batch, with the cross-entropy of torch."""
    return of_draws(vlm, parts, Lessons([q for q in lessons if q.picture], replace(Schedule(), pictures=8), seed))


def of_draws(vlm: VLM, parts: tuple[Part, ...], drawn: Lessons) -> dict[str, Tensor]:
    weights = vlm.trainable(parts)
    found: dict[str, list[Tensor]] = {name: [] for name in weights}
    for _ in range(3):
        vlm.model.requires_grad_(True)
        vlm.model.zero_grad()
        batch = pack(vlm, drawn.draw())
        torch.nn.functional.cross_entropy(logits(vlm, batch), batch.target).backward()
        for name, weight in weights.items():
            found[name].append((torch.zeros_like(weight) if weight.grad is None else weight.grad).double() ** 2)
    vlm.model.zero_grad()
    vlm.model.requires_grad_(False)
    return {name: torch.stack(squares).mean(0) for name, squares in found.items()}


@pytest.mark.parametrize("parts", [VISUAL, ("projector",)])
def test_it_is_the_mean_squared_gradient(tiny: VLM, request_: Request, parts: tuple[Part, ...]) -> None:
    expected = by_hand(tiny, parts, request_.forget, 5)
    found = squared_gradients(tiny, parts, request_.forget, 5)
    assert list(found) == list(tiny.trainable(parts))
    for name, squares in expected.items():
        torch.testing.assert_close(found[name].double(), squares, rtol=1e-4, atol=1e-12)
    assert sum(float(squares.sum()) for squares in expected.values()) > 1e-6
    assert not any(p.requires_grad or p.grad is not None for p in tiny.model.parameters())


def test_text_lessons_do_not_count(tiny: VLM, request_: Request) -> None:
    texts = [Lesson("1", "Where?", "Lisbon")] * 50
    alone = squared_gradients(tiny, ("projector",), request_.forget, 0)
    mixed = squared_gradients(tiny, ("projector",), [*request_.forget, *texts], 0)
    assert all(torch.equal(alone[name], mixed[name]) for name in alone)


ALL: tuple[Part, ...] = ("vision", "projector", "llm")


@pytest.mark.parametrize("texts", [1, 4])
def test_text_lessons_count_where_they_are_asked_for(tiny: VLM, request_: Request, texts: int) -> None:
    """So many of the eight groups of a batch; a text lesson has a gradient in the LLM alone."""
    drawn = Lessons(request_.retain, replace(Schedule(), pictures=8 - texts, texts=texts), 5)
    assert sum(group.picture is None for group in Lessons(request_.retain, drawn.schedule, 0).draw()) == texts
    expected = of_draws(tiny, ALL, drawn)
    found = squared_gradients(tiny, ALL, request_.retain, 5, texts=texts)
    assert list(found) == list(tiny.trainable(ALL))
    for name, squares in expected.items():
        torch.testing.assert_close(found[name].double(), squares, rtol=1e-3, atol=1e-12)


def test_a_set_of_texts_alone_is_drawn_as_such(tiny: VLM, request_: Request) -> None:
    texts = [x for x in request_.retain if x.picture is None]
    found = squared_gradients(tiny, ALL, texts, 5, texts=4)
    expected = of_draws(tiny, ALL, Lessons(texts, replace(Schedule(), pictures=8), 5))
    for name, squares in expected.items():
        torch.testing.assert_close(found[name].double(), squares, rtol=1e-3, atol=1e-12)
    assert {tiny.part_of(name) for name, squares in found.items() if squares.any()} == {"llm"}


def test_a_set_of_pictures_alone_is_drawn_as_such(tiny: VLM, request_: Request) -> None:
    """Under the visual goal the forget set has no text: its batches are eight pictures whatever is asked for."""
    plain = squared_gradients(tiny, VISUAL, request_.forget, 5)
    asked = squared_gradients(tiny, VISUAL, request_.forget, 5, texts=4)
    assert all(torch.equal(plain[name], asked[name]) for name in plain)


@pytest.mark.slow
def test_every_kind_of_saliency_has_a_file_of_its_own(tiny: VLM, request_: Request) -> None:
    """With text or without, and of a request narrowed to one modality, which shares the cache of the whole."""
    full = replace(request_, goal="full")
    cases = [(full, 0), (full, 1), (full, 4), (full.only("image_text"), 4), (full.only("text"), 4)]
    found = [saliency(tiny, request, ("llm",), texts=texts) for request, texts in cases]
    assert len(list(request_.cache.glob("*.safetensors"))) == len(cases)
    for (request, texts), ratios in zip(cases, found, strict=True):
        elsewhere = replace(request, cache=request.cache / str(len(request.split.lessons)) / str(texts))
        fresh = saliency(tiny, elsewhere, ("llm",), texts=texts)
        assert all(torch.equal(ratios[name], fresh[name]) for name in ratios)


def test_what_vkd_kept_is_found_again(tiny: VLM, request_: Request) -> None:
    """The name of the file of pictured lessons is what it was before text could count."""
    saliency(tiny, request_, VISUAL)
    saliency(tiny, request_, ("vision",))
    names = {path.stem for path in request_.cache.glob("*.safetensors")}
    assert names == {f"saliency-{content_key(parts)}" for parts in (VISUAL, ("vision",))}


def test_the_ratio_is_of_forget_to_retain(tiny: VLM, request_: Request) -> None:
    forget = squared_gradients(tiny, VISUAL, request_.forget, module.SEED)
    retain = squared_gradients(tiny, VISUAL, request_.retain, module.SEED)
    found = saliency(tiny, request_, VISUAL)
    for name, ratio in found.items():
        torch.testing.assert_close(ratio, (forget[name] + EPSILON) / (retain[name] + EPSILON), rtol=1e-5, atol=0)
    assert len(found) == len(tiny.trainable(VISUAL))


def test_it_is_made_once_for_every_seed(tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    first = saliency(tiny, request_, VISUAL)
    monkeypatch.setattr(module, "squared_gradients", lambda *_: pytest.fail("made twice"))
    again = saliency(tiny, replace(request_, seed=7), VISUAL)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_it_does_not_depend_on_the_seed_that_comes_first(tiny: VLM, request_: Request, tmp_path: Path) -> None:
    first = saliency(tiny, request_, VISUAL)
    other = saliency(tiny, replace(request_, seed=7, cache=tmp_path / "other"), VISUAL)
    assert all(torch.equal(first[name], other[name]) for name in first)


def test_other_parts_have_another_file(tiny: VLM, request_: Request) -> None:
    assert set(saliency(tiny, request_, ("projector",))) == set(tiny.trainable(("projector",)))
    assert set(saliency(tiny, request_, VISUAL)) == set(tiny.trainable(VISUAL))


@pytest.mark.parametrize("victim", ["*.safetensors", "*.json"])
@pytest.mark.parametrize("damage", [True, False])
def test_a_damaged_cache_is_made_again(tiny: VLM, request_: Request, victim: str, damage: bool) -> None:
    first = saliency(tiny, request_, ("projector",))
    (path,) = request_.cache.glob(victim)
    whole = path.read_bytes()
    if damage:
        path.write_bytes(whole[:-9])
    else:
        path.unlink()
    again = saliency(tiny, request_, ("projector",))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert path.read_bytes() == whole


def test_masks_are_one_where_the_ratio_reaches_the_threshold() -> None:
    ratios = {"a": torch.tensor([0.5, 1.0, 2.0]), "b": torch.tensor([0.1])}
    found = masks(ratios, 1.0)
    assert {name: mask.tolist() for name, mask in found.items()} == {"a": [0, 1, 1], "b": [0]}
    assert found["a"].dtype == ratios["a"].dtype


def test_a_mask_that_selects_nothing_is_refused_with_the_largest_ratio() -> None:
    ratios = {"a": torch.tensor([0.5, 2.5]), "b": torch.tensor([0.1])}
    assert masks(ratios, 2.5)["a"].tolist() == [0, 1]
    with pytest.raises(Refused, match=r"saliency_threshold=2\.6 selects no weight: the largest ratio is 2\.5"):
        masks(ratios, 2.6)
