"""MMUnlearner: what reaches the optimizer is -m grad CE(forget) + grad CE(retain), and m is what brute force finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from study.contracts import Request
from study.core.errors import Refused
from study.core.terms import PARTS, Goal, Part
from study.data.benchmark import Benchmark, Lesson
from study.methods import _saliency
from study.methods.gradient_difference import GradientDifference
from study.methods.mmunlearner import MASKED, TEXTS, MMUnlearner
from study.model.packing import logits, pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.schedule import Schedule
from tests.helpers.small import QUICK, changed, plain_logps, request_on, snapshot, twin

SMALL = replace(QUICK, lessons_per_picture=2, lessons_per_text=2)
Gradient = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_saliency, "BATCHES", 3)


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path / "cache", tiny_folder)


def method(**fields: Any) -> MMUnlearner:
    return MMUnlearner(**{"schedule": SMALL, **fields})


def gradient_of(value: Tensor, vlm: VLM, parts: Sequence[Part] = PARTS) -> Gradient:
    """The gradient by name, zero where there is none; leaves nothing behind."""
    weights = vlm.trainable(parts)
    found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    return {n: torch.zeros_like(w) if g is None else g for (n, w), g in zip(weights.items(), found, strict=True)}


def plain(vlm: VLM, lessons: Lessons) -> Tensor:
    """The cross-entropy of the next draw, each answer asked by itself."""
    return -torch.cat(plain_logps(vlm, lessons.draw())).mean()


def streams(request: Request, schedule: Schedule = SMALL) -> tuple[Lessons, Lessons]:
    return Lessons(request.forget, schedule, request.seed), Lessons(request.retain, schedule, request.seed + 1)


def taken(
    chosen: Any, vlm: VLM, request: Request, monkeypatch: pytest.MonkeyPatch, steps: Sequence[int] = (0,)
) -> tuple[list[float], list[Gradient]]:
    """Loss and gradient at some steps, of a model that was moved away from its start before the first."""
    module = type(chosen).__module__
    values, found = [], []

    def instead(vlm: VLM, parts: Sequence[Part], schedule: Schedule, loss: Callable[[int], Tensor], **_: Any) -> None:
        move(vlm, parts)
        for step in steps:
            value = loss(step)
            values.append(float(value.detach()))
            found.append(gradient_of(value, vlm, parts))

    monkeypatch.setattr(f"{module}.train", instead)
    chosen(vlm, request)
    return values, found


def given(chosen: Any, vlm: VLM, request: Request, monkeypatch: pytest.MonkeyPatch) -> Gradient:
    """What AdamW finds in `.grad` at its first step, which is not taken."""
    found: Gradient = {}

    def stopped(optimizer: torch.optim.AdamW) -> None:
        weights = vlm.trainable(PARTS)
        found.update({n: torch.zeros_like(w) if w.grad is None else w.grad.clone() for n, w in weights.items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        chosen(vlm, request)
    return found


def move(vlm: VLM, parts: Sequence[Part]) -> None:
    generator = torch.Generator().manual_seed(7)
    for weight in vlm.trainable(parts).values():
        weight.data.add_(0.05 * torch.randn(weight.shape, generator=generator))
        weight.requires_grad_(True)


def close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert max(float(g.abs().max()) for g in wanted.values()) > 1e-3
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)


def squares(vlm: VLM, parts: Sequence[Part], lessons: Sequence[Lesson], pictures: int, texts: int) -> Gradient:
    """The mean over three batches of the squared gradient, by backward passes with the cross-entropy of torch."""
    drawn = Lessons(lessons, replace(Schedule(), pictures=pictures, texts=texts), _saliency.SEED)
    weights = vlm.trainable(parts)
    total = {name: torch.zeros(w.shape, dtype=torch.float64) for name, w in weights.items()}
    for _ in range(3):
        for weight in weights.values():
            weight.requires_grad_(True)
        groups = drawn.draw()
        assert [g.picture is None for g in groups] == [False] * pictures + [True] * texts
        batch = pack(vlm, groups)
        loss = torch.nn.functional.cross_entropy(logits(vlm, batch), batch.target)
        for name, g in gradient_of(loss, vlm, parts).items():
            total[name] += g.double() ** 2 / 3
    for weight in weights.values():
        weight.requires_grad_(False)
    return total


@pytest.mark.parametrize("goal", ["visual", "full"])
def test_the_mask_is_that_of_brute_force(
    tiny: VLM, benchmark: Benchmark, tiny_folder: Path, tmp_path: Path, goal: Goal
) -> None:
    """Pictures alone for the visual module; for the LLM half texts, wherever the request has some."""
    request = request_on(benchmark, tmp_path, tiny_folder, goal=goal)
    mask = method(saliency_threshold=1.0).mask(tiny, request)
    assert mask.keys() == tiny.trainable(PARTS).keys()
    gone = [x for x in request.forget if x.picture]
    kept = [x for x in request.retain if x.picture]
    visual: tuple[Part, ...] = ("vision", "projector")
    assert any(x.person in request.split.forget_people for x in request.retain) == (goal == "visual")
    forget = squares(tiny, visual, gone, 8, 0)
    retain = squares(tiny, visual, kept, 8, 0)
    forget |= squares(tiny, ("llm",), request.forget, *((8, 0) if goal == "visual" else (8 - TEXTS, TEXTS)))
    retain |= squares(tiny, ("llm",), request.retain, 8 - TEXTS, TEXTS)
    agree = total = ones = 0
    for name, found in mask.items():
        ratio = (forget[name] + _saliency.EPSILON) / (retain[name] + _saliency.EPSILON)
        clear = (ratio - 1).abs() > 1e-3  # float rounding may tip what lies on the threshold
        agree += int((found[clear] == (ratio >= 1)[clear]).sum())
        total += int(clear.sum())
        ones += int(found.sum())
    assert agree == total > 0.9 * sum(m.numel() for m in mask.values())
    assert 0.02 < ones / total < 0.98


def test_what_reaches_the_optimiser_is_the_formula(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masked forget gradient and the whole retain gradient, at weights away from those the mask was made at."""
    chosen = method(saliency_threshold=1.0, forget_weight=0.3, retain_weight=2.0)
    mask = chosen.mask(tiny, request_)
    (value,), (found,) = taken(chosen, tiny, request_, monkeypatch)
    forget, retain = (plain(tiny, lessons) for lessons in streams(request_))
    up, down = gradient_of(forget, tiny), gradient_of(retain, tiny)
    assert value == pytest.approx(float((2 * retain - 0.3 * forget).detach()), abs=1e-4)
    close(found, {name: 2 * down[name] - 0.3 * mask[name] * up[name] for name in down})
    unmasked = {name: 2 * down[name] - 0.3 * up[name] for name in down}
    assert max(float((found[name] - unmasked[name]).abs().max()) for name in found) > 1e-3


def test_what_reaches_the_optimiser_is_also_what_it_is_given(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the loop itself, accumulation and clipping included: the `.grad` of the first step."""
    chosen = method(schedule=replace(SMALL, accumulate=2, clip=1e-2))
    mask = chosen.mask(tiny, request_)
    found = given(chosen, tiny, request_, monkeypatch)
    tiny.model.requires_grad_(True)
    forget, retain = streams(request_)
    wanted = {name: torch.zeros_like(m) for name, m in mask.items()}
    for _ in range(2):
        up, down = gradient_of(plain(tiny, forget), tiny), gradient_of(plain(tiny, retain), tiny)
        wanted = {name: wanted[name] + (down[name] - mask[name] * up[name]) / 2 for name in wanted}
    norm = torch.cat([g.flatten() for g in wanted.values()]).norm()
    assert float(norm) > 0.02
    for name, g in wanted.items():
        torch.testing.assert_close(found[name], g * 1e-2 / norm, rtol=1e-3, atol=1e-7, msg=name)


def test_without_a_threshold_it_is_gradient_difference(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: dict[str, Any] = {"forget_weight": 0.4, "retain_weight": 1.5, "schedule": SMALL}
    before = twin(tiny)
    ours = given(MMUnlearner(saliency_threshold=0, **weights), tiny, request_, monkeypatch)
    close(ours, given(GradientDifference(**weights), before, request_, monkeypatch))


def test_a_mask_that_selects_everything_changes_nothing(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_too = twin(tiny)
    everything = method(saliency_threshold=1e-30, trains=("llm",))
    assert all(bool(mask.all()) for mask in everything.mask(tiny, request_).values())
    masked = taken(everything, tiny, request_, monkeypatch)[1][0]
    free = taken(method(saliency_threshold=0, trains=("llm",)), tiny_too, request_, monkeypatch)[1][0]
    assert all(torch.equal(masked[name], free[name]) for name in free)


def test_a_mask_that_selects_nothing_is_refused(tiny: VLM, request_: Request) -> None:
    before = snapshot(tiny)
    with pytest.raises(Refused, match=r"saliency_threshold=1e\+30 selects no weight: the largest ratio is"):
        method(saliency_threshold=1e30)(tiny, request_)
    assert not changed(before, snapshot(tiny))


def test_where_the_mask_is_zero_only_the_retain_lessons_move_a_weight(tiny: VLM, request_: Request) -> None:
    """Without a retain term such weights stay what they are, bit for bit."""
    chosen = method(retain_weight=0.0)
    mask = chosen.mask(tiny, request_)
    before = snapshot(tiny)
    chosen(tiny, request_)
    after = snapshot(tiny)
    moved = 0
    for name, m in mask.items():
        assert torch.equal(before[name][m == 0], after[name][m == 0])
        moved += int((before[name] != after[name]).sum())
    assert moved > 0.5 * sum(float(m.sum()) for m in mask.values())


def test_the_forget_loss_rises_more_than_the_retain_loss(tiny: VLM, request_: Request) -> None:
    held = [Lessons(lessons, replace(SMALL, pictures=4), 11) for lessons in (request_.forget, request_.retain)]
    groups = [[g for g in lessons.draw() if g.picture] for lessons in held]
    before = [-float(torch.cat(plain_logps(tiny, g)).mean()) for g in groups]
    method(schedule=replace(SMALL, steps=12))(tiny, request_)
    after = [-float(torch.cat(plain_logps(tiny, g)).mean()) for g in groups]
    assert after[0] - before[0] > after[1] - before[1] + 0.02


# ---- as released -----------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_released_takes_one_forget_step_before_every_round_of_retain_steps(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = method(variant="released")
    rounds = len(request_.retain) // len(request_.forget)
    assert rounds > 2
    values, _ = taken(chosen, tiny, request_, monkeypatch, range(2 * rounds + 3))
    assert [i for i, value in enumerate(values) if value < 0] == [0, rounds + 1, 2 * rounds + 2]


def test_released_masks_after_clipping_and_lets_unnamed_weights_through(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = method(variant="released", schedule=replace(SMALL, clip=0.01))
    paper = method().mask(tiny, request_)
    mask = chosen.mask(tiny, request_)
    through = {name for name in paper if not any(key in name for key in MASKED)}
    assert mask.keys() == paper.keys() - through
    assert any("norm" in name for name in through)
    assert any("embed_tokens" in name for name in through)
    up, down = taken(chosen, tiny, request_, monkeypatch, (0, 1))[1]
    forget, retain = streams(request_)
    gradient = gradient_of(plain(tiny, forget), tiny)
    norm = torch.cat([g.flatten() for g in gradient.values()]).norm()
    assert float(norm) > 0.02
    for name, g in gradient.items():
        torch.testing.assert_close(up[name], -0.01 / norm * g * mask.get(name, 1), rtol=1e-3, atol=1e-7, msg=name)
    close(down, gradient_of(plain(tiny, retain), tiny))


# ---- what is refused -------------------------------------------------------------------------------------------
def test_adapters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lora_rank=8: the mask selects weights.*set lora_rank=0"):
        MMUnlearner(schedule=Schedule(lora_rank=8))


def test_released_does_not_accumulate() -> None:
    with pytest.raises(ValueError, match="accumulate=2"):
        MMUnlearner(variant="released", schedule=Schedule(accumulate=2))


@pytest.mark.parametrize(
    ("field", "value"),
    [("saliency_threshold", -1.0), ("forget_weight", float("nan")), ("retain_weight", -0.5), ("variant", "mine")],
)
def test_a_wrong_hyperparameter_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field}={value!r}"):
        MMUnlearner(**{field: value})


def test_text_alone_can_be_forgotten(tiny: VLM, benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> None:
    """No picture, no gradient outside the LLM; under the visual goal there is nothing to do, and that is said."""
    full = request_on(benchmark, tmp_path / "full", tiny_folder, goal="full")
    before = snapshot(tiny)
    method(modality="text")(tiny, full)
    assert {tiny.part_of(name) for name in changed(before, snapshot(tiny))} == {"llm"}
    with pytest.raises(Refused, match="modality='text'"):
        method(modality="text")(tiny, request_on(benchmark, tmp_path / "visual", tiny_folder))
