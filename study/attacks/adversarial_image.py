"""Adversarial pictures: noise too small to see that makes the model tell (PGD, Madry et al., arXiv 1706.06083).

One noise for each picture, or one for all (Moosavi-Dezfooli et al., arXiv 1610.08401; SUA does it to unlearned models
with 12/255, steps of 1/255 and 1000 of them, trained on other people than it is tested on).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from study.contracts import Attack, Request, Stage
from study.core import validation
from study.core.errors import Refused
from study.core.threat import Threat
from study.data.benchmark import Lesson, Question
from study.data.facts import sample_facts
from study.data.image_edits import encoded, shown_instead
from study.data.picture import Picture
from study.model.likelihood import answer_logps
from study.model.packing import Group, Prompt, pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import Diverged
from study.training.schedule import Schedule

Scope = Literal["per_image", "universal"]


@dataclass(frozen=True)
class AdversarialImage(Attack):
    """Sign steps on pixels that raise the likelihood of given answers; other answers are then asked for.

    The attacker has the weights, some facts about people and, for `universal`, pictures of those it has facts about.
    It costs `steps` times a forward and backward pass through the whole model for every `batch` pictures that are
    attacked, or that the one noise is trained on. The instruction in front of a prompt stays.

    Whole steps from whole pixels: every picture on the way is one of 8 bits within the bound, so what is optimized is
    what is shown, through the model's own processor. Pictures are first brought to the size that the model sees.
    `per_image` attacks the pictures of people whose facts are given and shows the others as they are; `universal` puts
    its noise on every picture. Text questions stay. Raises `Refused` for families whose processor is no map of
    pixels to pixels (flat patches of Qwen, tiles of LLaVA-NeXT).
    """

    scope: Scope = "per_image"
    """One noise for each picture, or one for all."""
    epsilon: int = 8
    """The bound: no colour of a pixel changes by more, in 1/255."""
    step: int = 1
    """By how much a step changes it, in 1/255."""
    steps: int = 40
    people: float = 0.5
    """Share of the forget people that the universal noise is trained on; per picture some facts of each are given."""
    facts: float = 0.5
    """Share of their facts that the attacker is given, at least one."""
    batch: int = 4
    """Pictures in a pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.share(self, "people", "facts")
        for name, most in (("epsilon", 255), ("step", self.epsilon), ("steps", math.inf), ("batch", math.inf)):
            value = getattr(self, name)
            if not (isinstance(value, int) and 1 <= value <= most):
                raise ValueError(f"{name}={value!r}: use a whole number from 1" + f" to {most}" * (most < math.inf))

    @property
    def threat(self) -> Threat:
        """Follows gradients of the model."""
        return Threat(capability="internals", knowledge="white box")

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """Some facts, of all forget people or of those the universal noise is trained on, as told of pictures."""
        pictured = [lesson for lesson in request.forget if lesson.picture is not None]
        people = self.people if self.scope == "universal" else 1.0
        return sample_facts(pictured, people=people, share=self.facts, seed=request.split.ratio)

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Ask about the noisy pictures."""
        canvas = _Canvas(vlm)
        attack = self._universal if self.scope == "universal" else self._per_image
        own = vlm.forgetful()  # pictures that nobody asks about again are not kept
        yield Stage(self.steps, own, shown_instead(questions, attack(canvas, questions, request)))

    def _per_image(self, canvas: _Canvas, questions: Sequence[Question], request: Request) -> Mapping[Picture, Picture]:
        told: dict[str, dict[Prompt, None]] = {}
        for lesson in self.given(request):
            told.setdefault(lesson.person, {})[Prompt(lesson.prompt, (lesson.answer,))] = None
        asked = {q.picture: q.person for q in questions if q.picture is not None and q.person in told}
        groups = [Group(picture, tuple(told[person])) for picture, person in asked.items()]
        changed: dict[Picture, Picture] = {}
        for start in range(0, len(groups), self.batch):
            changed |= self._climbed(canvas, groups[start : start + self.batch])
        return changed

    def _climbed(self, canvas: _Canvas, groups: Sequence[Group]) -> Mapping[Picture, Picture]:
        """The best picture on the way of each."""
        pictures = [group.picture for group in groups if group.picture is not None]
        found = canvas.colours(pictures)
        noise = torch.zeros_like(found)
        best, highest = found, torch.full((len(found),), -math.inf, device=found.device)
        for at in range(self.steps + 1):
            shown = (found + noise).clamp(0, 255)
            values, slope = canvas.slope(groups, shown)
            better = values > highest
            best, highest = torch.where(better[:, None, None, None], shown, best), torch.where(better, values, highest)
            noise = self._stepped(at, shown - found, slope)
        return canvas.pictures(pictures, best)

    def _universal(self, canvas: _Canvas, questions: Sequence[Question], request: Request) -> Mapping[Picture, Picture]:
        drawn = Lessons(self.given(request), Schedule(pictures=self.batch), request.seed)
        noise: Tensor | float = 0.0
        for at in range(self.steps):
            groups = drawn.draw()
            found = canvas.colours([group.picture for group in groups if group.picture is not None])
            _, slope = canvas.slope(groups, (found + noise).clamp(0, 255))
            noise = self._stepped(at, torch.zeros_like(found[:1]) + noise, slope.sum(0, keepdim=True))
        changed: dict[Picture, Picture] = {}
        for picture in dict.fromkeys(q.picture for q in questions if q.picture is not None):
            changed |= canvas.pictures([picture], (canvas.colours([picture]) + noise).clamp(0, 255))
        return changed

    def _stepped(self, at: int, noise: Tensor, slope: Tensor) -> Tensor:
        if not slope.isfinite().all():
            raise Diverged(at, "the gradient of the pictures is not finite")
        return (noise + self.step * slope.sign()).clamp(-self.epsilon, self.epsilon)


class _Canvas:
    """Pictures as whole colours from 0 to 255, (B, 3, H, W) in float32, at the size that the model sees.

    Raises `Refused` unless the processor maps such pictures to what the model is shown, pixel by pixel.
    """

    def __init__(self, vlm: VLM) -> None:
        self.vlm = vlm
        processor = vlm.processor.image_processor
        self.shape = vlm.grey().tensors["pixel_values"].shape[1:]
        if len(self.shape) < 3 or self.shape[-3] != 3 or math.prod(self.shape[:-3]) != 1:
            raise Refused(
                f"a picture is {tuple(self.shape)} to {type(vlm.model).__name__}, not colours by rows and columns: "
                "adversarial_image cannot tell its pixels apart; leave this attack out for this family of models"
            )
        self.mean, self.std = (
            255 * torch.tensor(values, device=vlm.device)[:, None, None]
            for values in (processor.image_mean, processor.image_std)
        )
        anything = torch.rand(self.shape[-3:], generator=torch.Generator().manual_seed(0)).mul(255).round()
        made = vlm.pixels_of([_image(anything)]).tensors
        again, ours = made["pixel_values"], self._normalized(anything.to(vlm.device))
        if others := [name for name, tensor in made.items() if tensor.is_floating_point() and tensor is not again]:
            raise Refused(
                f"{type(vlm.model).__name__} is shown a picture as pixel_values and as {' and '.join(others)}: "
                "adversarial_image can change only the first; leave it out for this family of models"
            )
        if again.shape[1:] != self.shape or not torch.allclose(again.flatten(0, -4), ours.cpu(), atol=1e-3):
            raise Refused(
                f"the processor of {type(vlm.model).__name__} changes pictures of the size that the model sees, so a "
                "bound on pixels would not hold; leave adversarial_image out for this family of models"
            )

    def colours(self, pictures: Sequence[Picture]) -> Tensor:
        """The pictures as the processor brings them to size, in whole colours."""
        seen = self.vlm.pixels(pictures).tensors["pixel_values"].flatten(0, -4)
        return (seen * self.std + self.mean).round().clamp(0, 255)

    def slope(self, groups: Sequence[Group], colours: Tensor) -> tuple[Tensor, Tensor]:
        """The mean log-likelihood of the answers to each picture, (B,), and how it rises with the colours."""
        wanted = colours.detach().requires_grad_()
        grey = self.vlm.grey(len(colours))  # with a mask of the padding, for families that have one
        shown = {**grey.tensors, "pixel_values": self._normalized(wanted).reshape(-1, *self.shape)}
        pixels = replace(grey, tensors=shown)
        logps = answer_logps(self.vlm, pack(self.vlm, groups, pixels))
        counts = [sum(len(prompt.answers) for prompt in group.prompts) for group in groups]
        values = torch.stack([part.mean() for part in logps.split(counts)])
        return values.detach(), torch.autograd.grad(values.sum(), wanted)[0]

    def pictures(self, originals: Sequence[Picture], colours: Tensor) -> dict[Picture, Picture]:
        """The pictures of some colours, by what they were made of."""
        made = [encoded(_image(c), f"{p.where}, with noise") for p, c in zip(originals, colours, strict=True)]
        return dict(zip(originals, made, strict=True))

    def _normalized(self, colours: Tensor) -> Tensor:
        return (colours - self.mean) / self.std


def _image(colours: Tensor) -> Image.Image:
    return Image.fromarray(colours.permute(1, 2, 0).to("cpu", torch.uint8).numpy())
