"""Saliency is the mean squared gradient of the very batches it draws, made once and cut anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from study import saliency as module
from study.contracts import Request
from study.packing import logits, pack
from study.questions import Benchmark, Lesson
from study.saliency import EPSILON, masks, saliency, squared_gradients
from study.training import Lessons, Schedule
from study.vlm import VLM, Part

VISUAL: tuple[Part, ...] = ("vision", "projector")


def never() -> VLM:
    raise AssertionError("saliency needs no other model")


@pytest.fixture(autouse=True)
def few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCHES", 3)


@pytest.fixture
def request_(benchmark: Benchmark, tmp_path: Path) -> Request:
    return Request(benchmark.split(10), "visual", benchmark.strangers, 0, tmp_path / "cache", never, never)


def by_hand(vlm: VLM, parts: tuple[Part, ...], lessons: tuple[Lesson, ...], seed: int) -> dict[str, Tensor]:
    """One backward pass a batch, with the cross-entropy of torch."""
    drawn = Lessons([q for q in lessons if q.picture], replace(Schedule(), pictures=8), seed)
    weights = vlm.trainable(parts)
    found: dict[str, list[Tensor]] = {name: [] for name in weights}
    for _ in range(3):
        vlm.model.requires_grad_(True)
        vlm.model.zero_grad()
        batch = pack(vlm, drawn.draw())
        torch.nn.functional.cross_entropy(logits(vlm, batch), batch.target).backward()
        for name, weight in weights.items():
            assert weight.grad is not None
            found[name].append(weight.grad.double() ** 2)
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
    with pytest.raises(ValueError, match=r"saliency_threshold=2\.6 selects no weight: the largest ratio is 2\.5"):
        masks(ratios, 2.6)
