"""Visual anchoring: a bounded perturbation that makes vanilla forget, features that follow, and no retain picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from study.contracts import Request
from study.core.errors import Refused
from study.core.terms import Part
from study.data.benchmark import Benchmark, Lesson
from study.data.picture import Picture
from study.methods import visual_anchor
from study.methods.visual_anchor import Constraint, VisualAnchor, perturbed, projected_gradient
from study.model.likelihood import answer_logps
from study.model.loading import load
from study.model.packing import pack
from study.model.vision import Features, Pixels
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.losses import Distance
from study.training.schedule import Schedule
from tests.helpers.families import FAMILIES, family_folder
from tests.helpers.small import changed, fresh, request_on, same_bits, snapshot, twin

SHORT = Schedule(steps=2, learning_rate=1e-3, pictures=4, lessons_per_picture=2)
VISUAL: tuple[Part, ...] = ("vision", "projector")


class Retainless(Request):
    """A request that cannot be asked for its retain lessons."""

    @cached_property
    def retain(self) -> tuple[Lesson, ...]:
        raise AssertionError("the retain lessons were read")


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    whole = request_on(benchmark, tmp_path / "cache", tiny_folder)
    return Retainless(**{name: getattr(whole, name) for name in whole.__dataclass_fields__})


def method(**fields: Any) -> VisualAnchor:
    return VisualAnchor(**{"anchor_steps": 6, "schedule": SHORT, **fields})


def forget_pictures(request: Request) -> list[Picture]:
    return list(dict.fromkeys(x.picture for x in request.forget if x.picture))


def forgetting(vlm: VLM, request: Request, delta: Tensor | None = None) -> float:
    """The mean log-probability of the forget answers, with `delta` on the pictures if there is one."""
    groups = Lessons(request.forget, replace(SHORT, pictures=4, lessons_per_picture=6), 3).draw()
    pixels = vlm.pixels([group.picture for group in groups if group.picture])
    with torch.no_grad():
        return float(
            answer_logps(vlm, pack(vlm, groups, perturbed(pixels, delta) if delta is not None else None)).mean()
        )


# ---- stage 1 ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("epsilon", [0.02, 0.3])
def test_the_perturbation_stays_within_its_bound_and_makes_vanilla_forget(
    tiny: VLM, request_: Request, epsilon: float
) -> None:
    before = snapshot(tiny)
    delta = method(epsilon=epsilon, anchor_steps=20).anchor(tiny, request_)
    assert delta.shape == tiny.pixels(forget_pictures(request_)).tensors["pixel_values"].shape[1:]
    assert float(delta.abs().max()) == pytest.approx(epsilon)
    assert forgetting(tiny, request_, delta) < forgetting(tiny, request_) - 0.01
    assert same_bits(before, snapshot(tiny))
    assert not delta.requires_grad


def test_more_room_makes_it_forget_more(tiny: VLM, request_: Request) -> None:
    little, much = (method(epsilon=e, anchor_steps=20).anchor(tiny, request_) for e in (0.02, 0.3))
    assert forgetting(tiny, request_, much) < forgetting(tiny, request_, little) - 0.01


def test_the_loss_of_the_perturbation_is_npo(tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first step is against the gradient of 2/beta log(1 + (p / p_clean)^beta): Adam's is rate times the sign."""
    delta = method(epsilon=9.0, anchor_steps=1, anchor_rate=0.01, beta=0.7).anchor(tiny, request_)
    groups = Lessons(request_.forget, SHORT, request_.seed).draw()
    pixels = tiny.pixels([group.picture for group in groups if group.picture])
    shift = torch.zeros_like(delta, requires_grad=True)
    now = answer_logps(tiny, pack(tiny, groups, perturbed(pixels, shift)))
    formula = 2 / 0.7 * torch.log(1 + (now - now.detach()).exp() ** 0.7).mean()
    (gradient,) = torch.autograd.grad(formula, [shift])
    clear = gradient.abs() > 1e-5
    assert clear.float().mean() > 0.5
    torch.testing.assert_close(delta[clear], -0.01 * gradient[clear].sign(), rtol=0.05, atol=0)


# ---- stage 2 ---------------------------------------------------------------------------------------------------
def distance(student: Tensor, teacher: Tensor, how: str) -> float:
    if how == "cosine":
        return 1 - float(torch.nn.functional.cosine_similarity(student, teacher, dim=-1).mean())
    return float((student - teacher).square().mean() / teacher.var())


@pytest.mark.parametrize("how", ["mse", "cosine"])
@pytest.mark.parametrize(("layers", "first"), [("all", 0), ("last_half", 1), ("last", 1), ("projector", 2)])
def test_the_loss_is_its_formula(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch, how: Distance, layers: Any, first: int
) -> None:
    chosen = method(distance=how, layers=layers, fisher_weight=2.5, trains=VISUAL)
    vanilla, found = twin(tiny), []
    importance: dict[str, Tensor] = {}
    fisher = VisualAnchor._fisher

    def kept(self: VisualAnchor, *args: Any) -> dict[str, Tensor]:
        importance.update(fisher(self, *args))
        return importance

    def once(vlm: VLM, parts: Sequence[Part], schedule: Schedule, loss: Callable[[int], Tensor], **_: Any) -> None:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for weight in vlm.trainable(parts).values():
                weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
            found.append(float(loss(0)))

    monkeypatch.setattr(VisualAnchor, "_fisher", kept)
    monkeypatch.setattr(visual_anchor, "train", once)
    chosen(tiny, request_)
    delta = chosen.anchor(vanilla, request_)
    pixels = tiny.pixels(Lessons(request_.forget, SHORT, request_.seed).draw_pictures(4))
    with torch.no_grad():
        student, teacher = tiny.features(pixels), vanilla.features(perturbed(pixels, delta))
    wanted = distance(student.projected, teacher.projected, how)
    pairs = list(zip(student.layers, teacher.layers, strict=True))[first:]
    wanted += sum(distance(a, b, how) for a, b in pairs) / max(1, len(pairs))
    start = vanilla.tensors()
    moved = {name: (tensor - start[name]).double() for name, tensor in tiny.tensors().items()}
    assert importance.keys() == tiny.trainable(VISUAL).keys()
    penalty = sum(float((importance[name].double() * moved[name] ** 2).sum()) for name in importance)
    assert penalty > 1e-3
    assert found[0] == pytest.approx(wanted + 2.5 * penalty, rel=1e-4)


def apart(student: Features, teacher: Features) -> float:
    return distance(student.projected, teacher.projected, "mse")


@pytest.mark.slow
@pytest.mark.parametrize("trains", [("vision",), ("projector",), VISUAL])
def test_the_features_move_to_those_of_the_perturbed_pictures(
    tiny: VLM, request_: Request, trains: tuple[Part, ...]
) -> None:
    chosen = method(anchor_steps=20, fisher_weight=0.01, trains=trains, schedule=replace(SHORT, steps=30))
    vanilla = twin(tiny)
    delta = chosen.anchor(tiny, request_)
    pixels = tiny.pixels(forget_pictures(request_))
    with torch.no_grad():
        target, before = vanilla.features(perturbed(pixels, delta)), vanilla.features(pixels)
    chosen(tiny, request_)
    with torch.no_grad():
        assert apart(tiny.features(pixels), target) < 0.6 * apart(before, target)
    assert forgetting(tiny, request_) < forgetting(vanilla, request_)


@pytest.mark.slow
@pytest.mark.parametrize("constraint", ["anchors", "strangers"])
def test_the_penalty_holds_what_its_pictures_show(tiny_folder: Path, request_: Request, constraint: Constraint) -> None:
    """The heavier it is, the less the projector output changes on the pictures that it is taken from."""
    shifts = []
    for weight in (0.0, 1e4):
        vlm = fresh(tiny_folder)
        chosen = method(constraint=constraint, fisher_weight=weight, schedule=replace(SHORT, steps=30))
        pixels = vlm.pixels(request_.strangers if constraint == "strangers" else forget_pictures(request_))
        if constraint == "anchors":
            pixels = perturbed(pixels, chosen.anchor(vlm, request_))
        with torch.no_grad():
            before = vlm.features(pixels)
        chosen(vlm, request_)
        with torch.no_grad():
            shifts.append(apart(vlm.features(pixels), before))
    assert shifts[1] < 0.3 * shifts[0]


@pytest.mark.parametrize("constraint", ["anchors", "strangers"])
def test_the_penalty_is_taken_from_its_pictures(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch, constraint: Constraint
) -> None:
    """Forget pictures with the perturbation on them, or strangers without."""
    seen: list[Tensor] = []

    def noted(vlm: VLM, parts: Sequence[Part], pixels: Pixels, generator: torch.Generator) -> dict[str, Tensor]:
        seen.extend(pixels.tensors["pixel_values"])
        return {}

    monkeypatch.setattr(visual_anchor, "projected_gradient", noted)
    pictures = request_.strangers if constraint == "strangers" else forget_pictures(request_)
    plain = tiny.pixels(pictures).tensors["pixel_values"]
    delta = torch.full_like(plain[0], 0.25)
    method(constraint=constraint)._fisher(tiny, request_, forget_pictures(request_), delta)
    allowed = plain if constraint == "strangers" else plain + delta
    assert len(seen) == visual_anchor.FISHER_BATCHES * visual_anchor.FISHER_PICTURES
    assert all(any(torch.equal(picture, other) for other in allowed) for picture in seen)


def test_the_noise_gradient_is_that_of_the_scaled_projector_output(tiny: VLM, request_: Request) -> None:
    """Known by hand for the projector's last bias: the noise itself, summed over tokens."""
    pixels = tiny.pixels(request_.strangers[:3])
    found = projected_gradient(tiny, VISUAL, pixels, torch.Generator().manual_seed(5))
    with torch.no_grad():
        output = tiny.features(pixels).projected
    noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    wanted = noise.sum((0, 1)) / (output.numel() * output.var()).sqrt()
    torch.testing.assert_close(found["model.multi_modal_projector.linear_2.bias"], wanted, rtol=1e-4, atol=1e-6)
    assert found.keys() == tiny.trainable(VISUAL).keys()
    assert not any(p.requires_grad for p in tiny.model.parameters())


def test_the_fisher_penalty_foretells_how_far_the_output_moves(tiny: VLM, request_: Request) -> None:
    """Of small random steps, whose parts are uncorrelated, the mean relative change is the penalty."""
    fisher = method(constraint="strangers")._fisher(tiny, request_, [], torch.zeros(0))
    pixels = tiny.pixels(request_.strangers)
    generator = torch.Generator().manual_seed(0)
    foretold, seen = 0.0, 0.0
    with torch.no_grad():
        before = tiny.features(pixels)
        weights = tiny.trainable(("vision",))
        for _ in range(20):
            step = {n: 1e-3 * torch.randn(w.shape, generator=generator) for n, w in weights.items()}
            for name, weight in weights.items():
                weight.add_(step[name])
            foretold += sum(float((fisher[n] * s.square()).sum()) for n, s in step.items())
            seen += apart(tiny.features(pixels), before)
            for name, weight in weights.items():
                weight.sub_(step[name])
    assert 0.7 < seen / foretold < 1.4


# ---- what it may see and change --------------------------------------------------------------------------------
@pytest.mark.parametrize("constraint", ["anchors", "strangers"])
def test_no_retain_picture_is_ever_read(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch, constraint: Constraint
) -> None:
    """Neither through the request, whose retain lessons cannot be had, nor past it."""
    shown: set[Picture] = set()
    pixels = VLM.pixels

    def noted(self: VLM, pictures: Sequence[Picture]) -> Pixels:
        shown.update(pictures)
        return pixels(self, pictures)

    monkeypatch.setattr(VLM, "pixels", noted)
    monkeypatch.setattr(Request, "retain", Retainless.retain)
    method(constraint=constraint)(tiny, request_)
    allowed = set(forget_pictures(request_)) | (set(request_.strangers) if constraint == "strangers" else set())
    assert shown
    assert shown <= allowed
    with pytest.raises(AssertionError, match="were read"):
        _ = request_.retain


@pytest.mark.parametrize("family", FAMILIES)
def test_it_works_on_every_family(family: str, tmp_path: Path, request_: Request) -> None:
    vlm = load(family_folder(family, tmp_path))
    before = snapshot(vlm)
    chosen = method(epsilon=0.3, anchor_steps=3)
    delta = chosen.anchor(vlm, request_)
    assert 0 < float(delta.abs().max()) <= 0.3
    chosen(vlm, request_)
    assert {vlm.part_of(name) for name in changed(before, snapshot(vlm))} == {"vision"}


def test_adapters_can_be_trained_without_the_penalty(tiny: VLM, request_: Request) -> None:
    lora = replace(SHORT, lora_rank=2)
    before = snapshot(tiny)
    method(fisher_weight=0.0, schedule=lora)(tiny, request_)
    assert {tiny.part_of(name) for name in changed(before, snapshot(tiny))} == {"vision"}
    with pytest.raises(ValueError, match=r"lora_rank=2: .*or fisher_weight=0"):
        method(schedule=lora)


def test_strangers_have_to_be_there(tiny: VLM, request_: Request) -> None:
    with pytest.raises(Refused, match=r"needs pictures of strangers.*choose constraint='anchors'"):
        method(constraint="strangers")(tiny, replace(request_, strangers=()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", 0.0),
        ("anchor_steps", 0),
        ("anchor_rate", float("nan")),
        ("beta", -1.0),
        ("fisher_weight", -1.0),
        ("constraint", "nobody"),
        ("layers", "most"),
        ("distance", "far"),
        ("trains", ("vision", "llm")),
        ("trains", ()),
    ],
)
def test_a_wrong_hyperparameter_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        VisualAnchor(**{field: value})
    assert f"{field}={value!r}" in str(caught.value)
