"""Noise on pictures: exactly within its bound, better for the attacker, and one for all where it says so."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from study.attacks.adversarial_image import AdversarialImage, Scope, _Canvas
from study.contracts import Request
from study.core.errors import Refused
from study.data.benchmark import Benchmark, Lesson, Question
from study.data.facts import facts
from study.data.image_edits import encoded
from study.data.picture import Picture
from study.model.packing import Group, Prompt
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import Diverged
from study.training.schedule import Schedule
from tests.helpers.families import FAMILIES
from tests.helpers.small import fresh, plain_logps, request_on, same_bits, snapshot

SCOPES: list[Scope] = ["per_image", "universal"]


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path, tiny_folder, ratio=15)


@pytest.fixture
def questions(request_: Request) -> list[Question]:
    return [q for q in request_.split.questions if q.role in ("forget", "test", "real") and q.task == "classification"]


def colours(picture: Picture | None) -> np.ndarray:
    assert picture is not None
    return np.asarray(picture.open(), int)


def noises(attack: Any, vlm: VLM, questions: list[Question], request: Request) -> dict[Picture, np.ndarray]:
    """What an attack adds to each picture."""
    final = list(attack(vlm, questions, request))[-1].questions
    return {
        q.picture: colours(r.picture) - colours(q.picture) for q, r in zip(questions, final, strict=True) if q.picture
    }


def likelihood(vlm: VLM, picture: Picture, lessons: list[Lesson]) -> float:
    """The mean log-likelihood of what lessons state, asked about a picture one by one."""
    prompts = tuple(Prompt(prompt, (answer,)) for prompt, answer in sorted({(x.prompt, x.answer) for x in lessons}))
    with torch.no_grad():
        return float(torch.stack([logps.sum() for logps in plain_logps(vlm, [Group(picture, prompts)])]).mean())


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("epsilon", "step", "steps"), [(1, 1, 3), (3, 2, 4), (8, 8, 2)])
def test_the_bound_holds_in_whole_colours(
    scope: Scope, epsilon: int, step: int, steps: int, tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    """Decoded from the file that is shown; and the bound is used."""
    found = noises(AdversarialImage(scope, epsilon, step, steps), tiny, questions, request_)
    attacked = [noise for picture, noise in found.items() if noise.any()]
    assert attacked
    assert max(np.abs(noise).max() for noise in attacked) == min(epsilon, step * steps)
    people = {q.person for q in questions if q.picture in found and found[q.picture].any()}
    assert people == (request_.split.forget_people if scope == "per_image" else {q.person for q in questions})


def test_each_picture_makes_its_given_facts_likelier(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """Measured without the attack's own code: the answers of that person, after a decoded PNG file."""
    attack = AdversarialImage(epsilon=8, steps=12, batch=2)
    given = attack.given(request_)
    asked = [q for q in questions if q.role == "forget" and q.picture]
    final = list(attack(tiny, asked, request_))[-1].questions
    for before, after in {q.picture: (q, r) for q, r in zip(asked, final, strict=True)}.values():
        assert before.picture is not None
        assert after.picture is not None
        mine = [x for x in given if x.person == before.person]
        assert likelihood(tiny, after.picture, mine) > likelihood(tiny, before.picture, mine) + 0.03


def test_more_steps_are_never_worse(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """Steps far too large overshoot: what is shown is the best picture on the way."""
    given = AdversarialImage().given(request_)
    asked = next(q for q in questions if q.role == "forget" and q.picture)
    mine = [x for x in given if x.person == asked.person]
    reached, last = [], []
    for steps in range(1, 7):
        attack = AdversarialImage(epsilon=160, step=160, steps=steps)
        final = list(attack(tiny, [asked], request_))[-1].questions[0]
        assert final.picture is not None
        reached.append(likelihood(tiny, final.picture, mine))
        last.append(final.picture)
    assert reached == sorted(reached)
    assert len(set(last)) < len(last)


def slope(vlm: VLM, picture: Picture | None, prompts: tuple[Prompt, ...]) -> np.ndarray:
    """How the likelihood of some answers rises with the colours of one picture, (H, W, 3)."""
    assert picture is not None
    canvas = _Canvas(vlm)
    found = canvas.slope([Group(picture, prompts)], canvas.colours([picture]))[1][0]
    return found.permute(1, 2, 0).numpy()


def test_the_first_step_climbs_the_facts_of_that_very_person(
    tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    attack = AdversarialImage(epsilon=1, steps=1)
    given = attack.given(request_)
    asked = {q.picture: q for q in questions if q.role == "forget" and q.picture}
    found = noises(attack, tiny, list(asked.values()), request_)
    assert len(found) == 3
    for picture, q in asked.items():
        assert picture is not None
        wanted = {Prompt(x.prompt, (x.answer,)): None for x in given if x.person == q.person}
        direction = np.sign(slope(tiny, picture, tuple(wanted)))
        inside = (colours(picture) > 0) & (colours(picture) < 255)
        assert (found[picture] == direction)[inside].mean() > 0.999  # a slope of nearly nothing may round either way


def test_the_universal_step_climbs_the_sum_over_its_pictures(
    tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    attack = AdversarialImage("universal", epsilon=1, steps=1, batch=3)
    groups = Lessons(attack.given(request_), Schedule(pictures=3), request_.seed).draw()
    assert len(groups) == 3
    direction = np.sign(sum(slope(tiny, group.picture, group.prompts) for group in groups))
    for picture, noise in noises(attack, tiny, questions[:20], request_).items():
        inside = (colours(picture) > 0) & (colours(picture) < 255)
        assert (noise == direction)[inside].mean() > 0.999


def test_the_universal_noise_is_one_for_all(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """But where a colour would leave its range; on people whose facts were not given and on unseen pictures too."""
    attack = AdversarialImage("universal", steps=6)
    found = noises(attack, tiny, questions, request_)
    inside = {p: (colours(p) >= attack.epsilon) & (colours(p) <= 255 - attack.epsilon) for p in found}
    assert len(found) > 5
    one = np.zeros_like(next(iter(found.values())))
    for picture, noise in found.items():
        one = np.where(inside[picture], noise, one)
    known = np.any(list(inside.values()), axis=0)
    cut = 0
    for picture, noise in found.items():
        clipped = np.clip(colours(picture) + one, 0, 255) - colours(picture)
        assert np.array_equal(noise[inside[picture]], one[inside[picture]])
        assert np.array_equal(noise[known], clipped[known])
        cut += int((clipped != one)[known].sum())
    assert cut > 0


def test_the_universal_noise_helps_on_what_it_was_trained_on(tiny: VLM, request_: Request) -> None:
    attack = AdversarialImage("universal", steps=12)
    given = attack.given(request_)
    trained = {x.picture: x.person for x in given if x.picture}
    asked = [
        Question(str(i), person, "forget", "image_text", "classification", "select", "?", "a", ("a", "b"), picture)
        for i, (picture, person) in enumerate(trained.items())
    ]
    final = list(attack(tiny, asked, request_))[-1].questions
    gains = []
    for before, after in zip(asked, final, strict=True):
        assert before.picture is not None
        assert after.picture is not None
        mine = [x for x in given if x.person == before.person]
        gains.append(likelihood(tiny, after.picture, mine) - likelihood(tiny, before.picture, mine))
    assert np.mean(gains) > 0.05


@pytest.mark.parametrize("scope", SCOPES)
def test_no_weight_changes_and_no_gradient_is_left(
    scope: Scope, tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    before = snapshot(tiny)
    list(AdversarialImage(scope, steps=2)(tiny, questions[:20], request_))
    assert same_bits(before, snapshot(tiny))
    assert all(p.grad is None and not p.requires_grad for p in tiny.model.parameters())


@pytest.mark.parametrize(("scope", "people", "share"), [("per_image", 3, 4), ("universal", 2, 4)])
def test_what_is_given(
    scope: Scope, people: int, share: int, benchmark: Benchmark, tiny_folder: Path, tmp_path: Path
) -> None:
    """Half of the seven facts of everybody, or of half of the three people, as told of pictures."""
    request = request_on(benchmark, tmp_path, tiny_folder, ratio=15, goal="full")
    given = AdversarialImage(scope).given(request)
    assert all(x.picture for x in given)
    known: dict[str, set[str]] = {}
    for (person, _), fact in facts(given).items():
        known.setdefault(person, set()).add(fact)
    assert [len(found) for found in known.values()] == [share] * people


def test_the_slope_is_that_of_the_likelihood(tiny: VLM, request_: Request) -> None:
    """Compared with a difference quotient through the processor's own pixels, picture by picture."""
    lesson = AdversarialImage().given(request_)[0]
    others = [x for x in request_.forget if x.person != lesson.person and x.picture]
    assert lesson.picture is not None
    assert others[0].picture is not None
    groups = [
        Group(lesson.picture, (Prompt(lesson.prompt, (lesson.answer, "Lisbon")), Prompt("Who?", (lesson.answer,)))),
        Group(others[0].picture, (Prompt(others[0].prompt, (others[0].answer,)),)),
    ]
    canvas = _Canvas(tiny)
    found = canvas.colours([lesson.picture, others[0].picture])
    values, slope = canvas.slope(groups, found)
    direction = slope.sign()
    for i, group in enumerate(groups):
        single = found[i : i + 1]
        step = 0.25 * direction[i : i + 1]
        up, down = (canvas.slope([group], single + s)[0] for s in (step, -step))
        assert float(up - down) / 0.5 == pytest.approx(float((slope[i] * direction[i]).sum()), rel=0.02)
    plain = [torch.stack([logp.sum() for logp in plain_logps(tiny, [group])]).mean() for group in groups]
    assert values.tolist() == pytest.approx([float(value) for value in plain], abs=1e-3)


def test_a_picture_of_another_size_is_first_brought_to_the_models(
    tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    """What is shown then is what the model saw, plus noise within the bound."""
    asked = [q for q in questions if q.role == "forget" and q.picture][:4]
    large = [
        replace(q, picture=encoded(q.picture.open().resize((90, 70)), "large")) for q in asked if q.picture is not None
    ]
    final = list(AdversarialImage(epsilon=2, steps=2)(tiny, large, request_))[-1].questions
    for before, after in zip(large, final, strict=True):
        assert before.picture is not None
        shown = tiny.processor.image_processor(before.picture.open(), return_tensors="np")["pixel_values"][0]
        was = np.round((shown * 0.5 + 0.5) * 255).transpose(1, 2, 0)
        assert colours(after.picture).shape == (48, 48, 3)
        assert 0 < np.abs(colours(after.picture) - was).max() <= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_families_whose_pixels_can_be_told_apart_and_the_others_say_so(
    family: str, family_folders: dict[str, Path], request_: Request
) -> None:
    vlm = fresh(family_folders[family])
    asked = [q for q in request_.split.questions if q.role == "forget" and q.picture][:3]
    attack = AdversarialImage(epsilon=2, steps=1)
    if "qwen" in family or "next" in family or family == "mllama":
        with pytest.raises(Refused, match=r"cannot tell its pixels apart.*leave this attack out"):
            next(attack(vlm, asked, request_))
        return
    if family in ("idefics3", "smolvlm"):  # it enlarges every picture before it shrinks it to what the model sees
        with pytest.raises(Refused, match=r"changes pictures of the size.*leave adversarial_image out"):
            next(attack(vlm, asked, request_))
        return
    final = list(attack(vlm, asked, request_))[-1].questions
    assert asked[0].picture is not None
    found = (vlm.pixels([r.picture for r in final if r.picture]), vlm.pixels([asked[0].picture]))
    apart = [pixels.tensors["pixel_values"][:1] for pixels in found]
    std = torch.tensor(vlm.processor.image_processor.image_std)[:, None, None]
    assert 0 < ((apart[0] - apart[1]) * std * 255).abs().max() < 2.6  # half a colour is what 8 bits round away


def test_a_processor_that_changes_what_it_is_given_is_found(
    tiny: VLM, request_: Request, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.processor.image_processor, "rescale_factor", 1 / 200)
    with pytest.raises(Refused, match="a bound on pixels would not hold"):
        next(AdversarialImage(steps=1)(tiny, questions, request_))


def test_a_broken_model_is_not_attacked(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    """Noise from numbers that are none would be no noise."""
    with torch.no_grad():
        next(iter(tiny.trainable(("projector",)).values())).fill_(math.nan)
    for scope in SCOPES:
        with pytest.raises(Diverged, match="not finite"):
            list(AdversarialImage(scope, steps=2)(tiny, questions, request_))


@pytest.mark.parametrize(
    ("field", "value"),
    [("scope", "all"), ("epsilon", 0), ("epsilon", 256), ("epsilon", 8.5), ("step", 9), ("step", 0), ("steps", 0),
     ("batch", 0), ("people", 0.0), ("facts", 1.1), ("facts", math.nan)],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        AdversarialImage(**{field: value})
    assert f"{field}={value!r}" in str(caught.value)
