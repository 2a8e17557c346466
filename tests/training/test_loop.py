"""The schedule, the stream of lessons, and the loop: what moves, what must not, and how it ends."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from study.core.errors import Refused
from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark, Lesson
from study.data.picture import Picture
from study.model.likelihood import token_logps
from study.model.packing import logits, pack
from study.model.vlm import VLM
from study.training import losses
from study.training.lesson_sampler import Lessons
from study.training.loop import Diverged, steps, train
from study.training.schedule import Schedule
from tests.helpers.small import fresh, same_bits

FAST = Schedule(steps=3, learning_rate=1e-3, pictures=2, lessons_per_picture=2)


@pytest.fixture(scope="module")
def lessons(benchmark: Benchmark) -> tuple[Lesson, ...]:
    return benchmark.split(5).lessons


def fit(
    vlm: VLM,
    lessons: Sequence[Lesson],
    schedule: Schedule = FAST,
    parts: Sequence[Part] = PARTS,
    seed: int = 0,
    **options: Any,
) -> list[float]:
    drawn = Lessons(lessons, schedule, seed)

    def loss(step: int) -> Tensor:
        batch = pack(vlm, drawn.draw())
        return losses.nll(token_logps(logits(vlm, batch), batch))

    return train(vlm, parts, schedule, loss, **options)


def size_of(vlm: VLM, parts: Sequence[Part] = ("projector",)) -> Callable[[int], Tensor]:
    """A loss without a model in it: the squared size of the weights."""
    weights = vlm.trainable(parts).values()
    return lambda step: torch.stack([w.square().sum() for w in weights]).sum()


def snapshot(vlm: VLM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in vlm.tensors().items()}


def moved(vlm: VLM, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in vlm.tensors().items() if not torch.equal(tensor, before[name])}


def is_at_rest(vlm: VLM) -> bool:
    quiet = not any(p.requires_grad or p.grad is not None for p in vlm.model.parameters())
    return quiet and not vlm.model.training


# ---- schedule ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(name, 0) for name in ("steps", "pictures", "lessons_per_picture", "lessons_per_text", "accumulate")],
        *[(name, -1) for name in ("texts", "warmup")],
        *[(name, value) for name in ("learning_rate", "weight_decay") for value in (-1e-9, math.nan, math.inf)],
        *[("beta2", value) for value in (0.0, 1.0, math.nan)],
        *[(name, value) for name in ("clip", "worst_loss") for value in (0.0, -1.0, math.nan)],
        ("decay", "exponential"),
        ("precision", "float16"),
    ],
)
def test_a_bad_setting_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}={value!r}: "):
        Schedule(**{field: value})


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.03 + 0.97 * 0.75, 0.03 + 0.97 * 0.5, 0.03 + 0.97 * 0.25]),
        ("cosine", [1, 0.03 + 0.97 * (1 + math.sqrt(0.5)) / 2, 0.515, 0.03 + 0.97 * (1 - math.sqrt(0.5)) / 2]),
    ],
)
def test_the_rate_falls_from_one(decay: Any, expected: list[float]) -> None:
    schedule = Schedule(steps=4, decay=decay)
    assert [schedule.rate(step) for step in range(4)] == pytest.approx(expected)


def test_the_rate_warms_up_in_equal_steps() -> None:
    schedule = Schedule(steps=8, warmup=4, decay="constant")
    assert [schedule.rate(step) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


@given(st.integers(1, 50), st.integers(0, 60), st.sampled_from(["constant", "linear", "cosine"]))
def test_the_rate_is_a_share_that_does_not_rise_after_warm_up(count: int, warmup: int, decay: Any) -> None:
    schedule = Schedule(steps=count, warmup=warmup, decay=decay)
    rates = [schedule.rate(step) for step in range(count)]
    assert all(0 < rate <= 1 for rate in rates)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(rates[max(0, warmup - 1) :]))


# ---- lessons -------------------------------------------------------------------------------------------------------
def made_up(pictures: int, each: int = 3, texts: int = 0) -> list[Lesson]:
    shown = [Picture(bytes([i]), f"{i}") for i in range(pictures)]
    return [
        *(Lesson(str(i // 2), f"{j}?", f"{i}", shown[i]) for i in range(pictures) for j in range(each)),
        *(Lesson("t", f"{j}?", "!") for j in range(texts)),
    ]


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 5))
def test_every_round_shows_every_picture_once(pictures: int, batch: int, seed: int) -> None:
    drawn = Lessons(made_up(pictures), Schedule(pictures=batch), seed)
    seen = [p for _ in range(3 * pictures) for p in drawn.draw_pictures(batch)]
    for start in range(0, len(seen) - pictures + 1, pictures):
        assert len(set(seen[start : start + pictures])) == pictures


def test_a_set_smaller_than_a_batch_is_repeated() -> None:
    groups = Lessons(made_up(2), Schedule(pictures=5), 0).draw()
    assert sorted(Counter(group.picture for group in groups).values()) == [2, 3]


def test_rounds_and_draws_are_shuffled_by_the_seed() -> None:
    schedule = Schedule(pictures=8, lessons_per_picture=2)
    first, again, other = (Lessons(made_up(8, each=6), schedule, seed) for seed in (0, 0, 1))
    one, two = first.draw(), first.draw()
    assert one == again.draw()
    assert two == again.draw()
    assert one != other.draw()
    assert [g.picture for g in one] != [g.picture for g in two]


def test_a_group_holds_distinct_lessons_of_its_picture() -> None:
    for group in Lessons(made_up(4, each=6), Schedule(pictures=4, lessons_per_picture=4), 0).draw():
        assert group.picture is not None
        assert len({prompt.text for prompt in group.prompts}) == 4
        assert {prompt.answers for prompt in group.prompts} == {(group.picture.where,)}


def test_no_more_lessons_are_drawn_than_there_are() -> None:
    (group,) = Lessons(made_up(1, each=3), Schedule(pictures=1, lessons_per_picture=9), 0).draw()
    assert len(group.prompts) == 3


@pytest.mark.parametrize(("pictures", "texts", "expected"), [(2, 9, [3, 1]), (2, 0, [3, 0]), (0, 9, [0, 3])])
def test_a_batch_has_pictures_and_texts(pictures: int, texts: int, expected: list[int]) -> None:
    schedule = Schedule(pictures=3, texts=1, lessons_per_text=2)
    groups = Lessons(made_up(pictures, texts=texts), schedule, 0).draw()
    shown = [group.picture is not None for group in groups]
    assert [shown.count(True), shown.count(False)] == expected
    assert shown == sorted(shown, reverse=True)
    assert all(len(group.prompts) == 2 for group in groups if group.picture is None)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(Refused, match="the set is empty"):
        Lessons([], Schedule(), 0)


def test_a_set_without_pictures_has_none_to_draw() -> None:
    with pytest.raises(Refused, match="no lesson with a picture"):
        Lessons(made_up(0, texts=2), Schedule(), 0).draw_pictures(1)


def test_albums_are_by_person() -> None:
    drawn = Lessons(made_up(4, texts=1), Schedule(), 0)
    assert {person: [p.where for p in album] for person, album in drawn.albums().items()} == {
        "0": ["0", "1"],
        "1": ["2", "3"],
    }
    assert drawn.person_of(Picture(bytes([3]), "elsewhere")) == "1"


# ---- the loop ------------------------------------------------------------------------------------------------------
def test_training_lowers_the_loss_and_ends_at_rest(tiny: VLM, lessons: tuple[Lesson, ...]) -> None:
    told: list[tuple[int, float]] = []
    schedule = Schedule(steps=12, learning_rate=5e-3, pictures=2, decay="constant")
    curve = fit(tiny, lessons[:6], schedule, on_step=lambda done, value: told.append((done, value)))
    assert curve[-1] < 0.8 * curve[0]
    assert told == list(enumerate(curve, 1))
    assert is_at_rest(tiny)


def test_the_same_seed_gives_the_same_bits(tiny: VLM, tiny_folder: Any, lessons: tuple[Lesson, ...]) -> None:
    other = fresh(tiny_folder)
    assert fit(tiny, lessons) == fit(other, lessons)
    assert moved(tiny, snapshot(other)) == set()
    third = fresh(tiny_folder)
    fit(third, lessons, seed=1)
    assert moved(tiny, snapshot(third)) != set()


@pytest.mark.parametrize("parts", [("vision",), ("projector",), ("llm",), ("vision", "projector")])
def test_only_the_wanted_parts_move(tiny: VLM, lessons: tuple[Lesson, ...], parts: tuple[Part, ...]) -> None:
    before = snapshot(tiny)
    fit(tiny, lessons, FAST, parts)
    assert {tiny.part_of(name) for name in moved(tiny, before)} == set(parts)
    assert moved(tiny, before) <= set(tiny.trainable(parts))


def test_what_is_under_the_mask_does_not_move(tiny: VLM, lessons: tuple[Lesson, ...]) -> None:
    before = snapshot(tiny)
    generator = torch.Generator().manual_seed(0)
    parts: tuple[Part, ...] = ("vision", "projector")
    masks = {
        name: (torch.rand(p.shape, generator=generator) < 0.3).float() for name, p in tiny.trainable(parts).items()
    }
    shut, missing = "model.multi_modal_projector.linear_1.weight", "model.multi_modal_projector.linear_2.weight"
    masks[shut] = torch.zeros_like(masks[shut])
    del masks[missing]
    fit(tiny, lessons, Schedule(steps=4, learning_rate=1e-2, pictures=2), parts, masks=masks)
    after = tiny.tensors()
    for name, mask in masks.items():
        assert torch.equal(after[name][mask == 0], before[name][mask == 0])
    assert torch.equal(after[missing], before[missing])
    free = [name for name, mask in masks.items() if mask.any() and not name.endswith("k_proj.bias")]
    changed = sum(int((after[n] != before[n]).sum()) for n in free) / sum(int(masks[n].sum()) for n in free)
    assert changed > 0.9


def test_weight_decay_is_refused_under_a_mask(tiny: VLM) -> None:
    masks = {name: torch.ones_like(p) for name, p in tiny.trainable(PARTS).items()}
    with pytest.raises(Refused, match=r"weight_decay=0\.1 would move masked weights"):
        train(tiny, PARTS, Schedule(weight_decay=0.1), size_of(tiny), masks=masks)


@pytest.mark.parametrize("parts", [(), ("vision",)])
def test_nothing_to_train_is_an_error(tiny: VLM, parts: tuple[Part, ...]) -> None:
    masks = {name: torch.zeros_like(p) for name, p in tiny.trainable(parts).items()}
    with pytest.raises(Refused, match=r"is left to train|no part is trained"):
        train(tiny, parts, FAST, size_of(tiny), masks=masks)


@pytest.mark.parametrize(("factor", "what"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (1e9, "")])
def test_a_loss_that_means_nothing_ends_training_before_it_moves_a_weight(tiny: VLM, factor: float, what: str) -> None:
    plain, at_two = size_of(tiny), list[dict[str, Tensor]]()

    def loss(step: int) -> Tensor:
        if step < 2:
            return plain(step)
        at_two.append(snapshot(tiny))
        return plain(step) * factor

    with pytest.raises(Diverged, match=f"diverged at step 2: the loss is {what}") as caught:
        train(tiny, ("projector",), Schedule(steps=9, learning_rate=1e-3), loss)
    assert caught.value.step == 2
    assert len(at_two) == 1
    assert moved(tiny, at_two[0]) == set()
    assert is_at_rest(tiny)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_worst_loss_is_the_schedules(tiny: VLM, sign: int) -> None:
    value = float(size_of(tiny)(0))
    train(tiny, ("projector",), Schedule(steps=1, worst_loss=1.01 * value), lambda s: sign * size_of(tiny)(s))
    with pytest.raises(Diverged):
        train(tiny, ("projector",), Schedule(steps=1, worst_loss=0.9 * value), lambda s: sign * size_of(tiny)(s))


def test_a_gradient_that_is_not_finite_ends_training(tiny: VLM) -> None:
    (weight, *_) = tiny.trainable(("projector",)).values()
    before = snapshot(tiny)
    with pytest.raises(Diverged, match=r"at step 0: the gradient norm is (nan|inf)"):
        train(tiny, ("projector",), FAST, lambda step: (weight - weight.detach()).abs().sum().sqrt())
    assert moved(tiny, before) == set()
    assert is_at_rest(tiny)


def test_weights_that_explode_have_diverged(tiny: VLM) -> None:
    """In the step in which they do, though loss and gradient are finite."""
    weight = tiny.trainable(("projector",))["model.multi_modal_projector.linear_1.weight"]
    mild = Schedule(steps=2, learning_rate=1e-3, decay="constant", worst_weight=20.0)
    assert len(train(tiny, ("projector",), mild, lambda step: weight.sum())) == 2
    with pytest.raises(Diverged, match=r"diverged at step 0: a weight is .* \(limit 20\)"):
        train(tiny, ("projector",), replace(mild, learning_rate=30.0), lambda step: weight.sum())


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), -1e6, float("nan")])
def test_a_weight_too_large_of_either_sign_or_no_number_has_diverged(tiny: VLM, value: float) -> None:
    weight = tiny.trainable(("projector",))["model.multi_modal_projector.linear_1.weight"]
    weight.data[0, 0] = value
    with pytest.raises(Diverged, match=f"diverged at step 0: a weight is {abs(value):.4g} ".replace("+", r"\+")):
        train(tiny, ("projector",), FAST, lambda step: weight[1].sum())


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_adamw_has_the_bits_of_torch_one_tensor_at_a_time(tiny: VLM, tiny_folder: Any, decay: float) -> None:
    other = fresh(tiny_folder)
    parts: tuple[Part, ...] = ("projector",)
    schedule = replace(FAST, weight_decay=decay, decay="constant", clip=1e9)
    train(tiny, parts, schedule, size_of(tiny))
    weights = other.trainable(parts)
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-3, weight_decay=decay, foreach=False)
    loss = size_of(other)
    for weight in weights.values():
        weight.requires_grad_(True)
    for step in range(schedule.steps):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    assert same_bits(snapshot(tiny), snapshot(other))


def test_sgd_with_momentum_is_its_formula(tiny: VLM) -> None:
    """v <- 0.9 v + g, w <- w - rate v."""
    weight = tiny.trainable(("projector",))["model.multi_modal_projector.linear_1.weight"]
    before = weight.detach().clone()
    schedule = Schedule(steps=3, learning_rate=0.1, decay="constant", optimizer="sgd", clip=1e9)
    train(tiny, ("projector",), schedule, lambda step: weight.sum())
    velocity, moved_by = 0.0, 0.0
    for _ in range(3):
        velocity = 0.9 * velocity + 1.0
        moved_by += 0.1 * velocity
    torch.testing.assert_close(weight.detach(), before - moved_by)


def test_divergence_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(Diverged(3, "the loss is nan")))
    assert isinstance(error, Diverged)
    assert (error.step, error.what, str(error)) == (3, "the loss is nan", "diverged at step 3: the loss is nan")


def test_a_loss_without_gradient_moves_nothing(tiny: VLM) -> None:
    before = snapshot(tiny)
    assert train(tiny, PARTS, FAST, lambda step: torch.tensor(2.0)) == [2.0] * 3
    assert moved(tiny, before) == set()


def test_two_half_batches_are_one_batch(tiny: VLM, tiny_folder: Any, lessons: tuple[Lesson, ...]) -> None:
    other = fresh(tiny_folder)
    drawn = Lessons([q for q in lessons if len(tiny.answer_ids(q.prompt, True, q.answer)) == 1], FAST, 0)
    batches = [drawn.draw() for _ in range(6)]  # answers of one length: the mean of the halves is the mean of all

    def loss(vlm: VLM, groups: Any) -> Tensor:
        batch = pack(vlm, groups)
        return losses.nll(token_logps(logits(vlm, batch), batch))

    halves = iter(batches)
    split = Schedule(steps=3, learning_rate=1e-3, accumulate=2)
    whole = Schedule(steps=3, learning_rate=1e-3)
    before = snapshot(tiny)
    ours = train(tiny, PARTS, split, lambda step: loss(tiny, next(halves)))
    theirs = train(other, PARTS, whole, lambda step: loss(other, batches[2 * step] + batches[2 * step + 1]))
    assert ours == pytest.approx(theirs, abs=1e-4)
    # Adam moves a weight by about the rate whatever its gradient, so that rounding may turn one that has none.
    drift, way = (
        torch.cat([(a[n] - b[n]).flatten() for n in b])
        for a, b in [(tiny.tensors(), other.tensors()), (tiny.tensors(), before)]
    )
    assert float(drift.norm() / way.norm()) < 0.02


def test_the_gradient_is_clipped(tiny: VLM) -> None:
    """AdamW forgets the scale of a gradient, but not how that scale changes from step to step."""
    curves = []
    for clip in (1e-3, 1e9):
        start = snapshot(tiny)
        train(
            tiny,
            ("projector",),
            Schedule(steps=2, learning_rate=1e-2, decay="constant", clip=clip),
            lambda step: size_of(tiny)(step) * (1 + 99 * step),
        )
        curves.append(torch.cat([(tiny.tensors()[n] - start[n]).flatten() for n in tiny.trainable(("projector",))]))
        with torch.no_grad():
            for name, parameter in tiny.model.named_parameters():
                parameter.copy_(start[name])
    assert not torch.allclose(curves[0], curves[1], rtol=0.01, atol=1e-5)


def test_bfloat16_is_an_autocast(tiny: VLM) -> None:
    seen: list[torch.dtype] = []

    def loss(step: int) -> Tensor:
        seen.append((torch.ones(1, 2) @ torch.ones(2, 1)).dtype)
        return size_of(tiny)(step)

    for precision in ("float32", "bfloat16"):
        train(tiny, ("projector",), Schedule(steps=1, precision=precision), loss)
    assert seen == [torch.float32, torch.bfloat16]


def test_only_the_loss_is_computed_in_training_mode(tiny: VLM) -> None:
    modes, size = [], size_of(tiny)

    def loss(step: int) -> Tensor:
        modes.append({module.training for module in tiny.model.modules()})
        return size(step) * (torch.nan if step == 2 else 1)

    def between(_done: int, _value: float) -> None:
        modes.append({module.training for module in tiny.model.modules()})

    with pytest.raises(Diverged, match="step 2"):
        train(tiny, ("projector",), FAST, loss, on_step=between)
    assert modes == [{True}, {False}, {True}, {False}, {True}]
    assert {module.training for module in tiny.model.modules()} == {False}


def test_dropout_draws_by_seed_and_step_and_leaves_other_draws_alone(tiny: VLM, tiny_folder: Any) -> None:
    schedule = replace(FAST, lora_rank=2, lora_dropout=0.5)
    drawn: dict[tuple[int, int], Tensor] = {}
    for i, seed in enumerate((3, 3, 4)):
        vlm = fresh(tiny_folder)
        weights = vlm.trainable(("projector",)).values()

        def loss(step: int, i: int = i) -> Tensor:
            drawn[i, step] = torch.rand(5)
            return torch.stack([w.square().sum() for w in weights]).sum()  # noqa: B023

        torch.manual_seed(i)
        before = torch.get_rng_state()
        train(vlm, ("projector",), schedule, loss, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(drawn[0, step], drawn[1, step]) for step in range(3))
    assert len({tuple(values.tolist()) for values in drawn.values()}) == 6


def test_a_model_can_be_scored_between_steps_and_left_early(tiny: VLM) -> None:
    stages = steps(tiny, ("projector",), FAST, size_of(tiny))
    done, value = next(stages)
    assert (done, value > 0, tiny.model.training) == (1, True, False)
    stages.close()
    assert is_at_rest(tiny)
