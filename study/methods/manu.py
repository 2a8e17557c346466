"""Modality-aware neuron unlearning (MANU; Liu et al. 2025, arXiv 2502.15910): prune, do not train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from study.contracts import Method, Request
from study.core import validation
from study.core.errors import Refused
from study.core.hashing import before
from study.core.terms import Part
from study.data.benchmark import Lesson
from study.engine.world import world
from study.methods._neurons import Neurons, listening, mlps, tokens
from study.model.packing import logits, pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.schedule import Schedule

Variant = Literal["paper", "released"]
Unit = Literal["neuron", "row"]
WEIGHTS: dict[Variant, tuple[float, ...]] = {"paper": (1.0, 1.0, 1.0, 1.0), "released": (2.0, 0.0, 2.0, 2.0)}
BATCH = Schedule(pictures=8, texts=8)


@dataclass(frozen=True)
class MANU(Method):
    """Set to 0 the `share` of MLP neurons with the highest S = I(forget) / (I(retain) + eps); no gradient.

    I = w1 |Z_m - Z_t| / (Z_m + Z_t + eps) + w2 |N_m - N_t| / (N_m + N_t + eps) + w3 sqrt(V_m + V_t)
    + w4 sqrt(|E_m - E_t| / (E_m + E_t + eps)), the paper's I_abs, I_freq, I_var and I_rms, for the activations z of a
    neuron on lessons with picture (m) and without (t): Z the mean of |z|, N how often |z| > `active_above`, V the
    variance, E the sum of z^2. A neuron is one entry of what an MLP's last linear layer reads; its highest scores
    are taken within each part. Every token counts but padding; a picture's own tokens count once for all questions
    asked about it in a batch.

    The forget set holds what the request covers in both modalities whatever the goal, as the paper's does, and the
    retain set the rest: under the goal `visual` too, text of the forget people is one side of the contrast. In a
    modality of which there is no lesson, and for the vision tower in text, nothing is active: all statistics are 0.

    `released` has the score of the released code: the sum over k of w_k (s_k(forget) / (s_k(retain) + eps) - 1) for s
    the mean of |z|, the share of |z| > 0.1, the standard deviation and the root mean square, of the lessons with
    picture for the tower and of those without for the language model. Which neurons it scores is for `unit` to say:
    with `unit=row` they are those of that code, what each linear layer of an MLP puts out, before the activation, and
    their rows alone are set to 0. Here every layer is scored by itself, padding does not count, and there is one
    round.
    """

    share: float = 0.05
    """Of the neurons of each part, those that are pruned (published: 0.02, 0.05 and 0.1)."""
    variant: Variant = "paper"
    """The score: the paper's formula, or that of the released code."""
    weights: tuple[float, ...] = ()
    """Of the four terms; empty for those of the variant: 1, 1, 1, 1 in the paper, 2, 0, 2, 2 in the released code."""
    last_layers: int = 0
    """MLPs of each part, from its last, among which is chosen (Open-MMUnlearning: 3); 0 for all."""
    active_above: float = 0.1
    """What counts as active (tau)."""
    eps: float = 1e-5
    batches: int = 8
    """Batches of eight groups drawn of each set in each modality, equally many of both sets as in the released code."""
    trains: tuple[Part, ...] = ("vision", "llm")
    """Parts that are pruned."""
    unit: Unit = field(default="neuron", metadata=before("neuron"))
    """What is scored and set to 0: a neuron with all weights into and out of it, or a row of a linear layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.share(self, "share")
        validation.not_negative(self, "last_layers", "active_above")
        validation.positive(self, "eps", "batches")
        if self.weights and (len(self.weights) != 4 or not min(self.weights) >= 0 or not sum(self.weights) > 0):
            raise ValueError(f"weights={self.weights}: four numbers that are not negative nor all 0, or none")
        if "projector" in self.trains or not self.trains:
            raise ValueError(f"trains={self.trains}: MANU prunes vision, llm or both, and never the projector")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Prune in place."""
        layers = [mlp for part in self.trains for mlp in mlps(vlm, part)[-self.last_layers :]]
        chosen: list[Neurons] = [*layers]
        if self.unit == "row":
            chosen = [row for mlp in layers for row in mlp.rows()]
        scores = self.scores(vlm, request, chosen)
        world().broadcast_(scores)
        for part in self.trains:
            ours = [i for i, mlp in enumerate(chosen) if mlp.part == part]
            together = torch.cat([scores[i] for i in ours])
            doomed = torch.zeros_like(together, dtype=torch.bool)
            doomed[together.topk(max(1, round(self.share * len(together)))).indices] = True
            for i, dies in zip(ours, doomed.split([chosen[i].width for i in ours]), strict=True):
                chosen[i].kill(dies.nonzero().squeeze(1))
        return vlm

    def scores(self, vlm: VLM, request: Request, chosen: Sequence[Neurons]) -> list[Tensor]:
        """S of every neuron of every MLP. Raises `Refused` if a set has no lesson at all."""
        gone = [lesson for lesson in request.split.lessons if request.split.is_forgotten(lesson, "full")]
        kept = [lesson for lesson in request.retain if not request.split.is_forgotten(lesson, "full")]
        found = []
        for name, lessons, seed in (("forget", gone, request.seed), ("retain", kept, request.seed + 1)):
            if not lessons:
                raise Refused(f"there are no {name} lessons to compare: the set is empty")
            pictured = [lesson for lesson in lessons if lesson.picture is not None]
            texts = [lesson for lesson in lessons if lesson.picture is None]
            found.append([self._activity(vlm, chosen, of, seed) for of in (pictured, texts)])
        (forget_m, forget_t), (retain_m, retain_t) = found
        if self.variant == "paper":
            return [
                self._importance(*forget) / (self._importance(*retain) + self.eps)
                for forget, retain in zip(
                    zip(forget_m, forget_t, strict=True), zip(retain_m, retain_t, strict=True), strict=True
                )
            ]
        return [
            self._excess(forget_t[i], retain_t[i]) if mlp.part == "llm" else self._excess(forget_m[i], retain_m[i])
            for i, mlp in enumerate(chosen)
        ]

    @property
    def _weights(self) -> tuple[float, ...]:
        return self.weights or WEIGHTS[self.variant]

    def _importance(self, m: Activity, t: Activity) -> Tensor:
        def contrast(one: Tensor, other: Tensor) -> Tensor:
            return (one - other).abs() / (one + other + self.eps)

        a, f, v, r = self._weights
        absolute, frequency = contrast(m.mean, t.mean), contrast(m.active, t.active)
        spread, energy = (m.variance + t.variance).sqrt(), contrast(m.energy, t.energy).sqrt()
        return a * absolute + f * frequency + v * spread + r * energy

    def _excess(self, forget: Activity, retain: Activity) -> Tensor:
        pairs = zip(self._weights, forget.rates(), retain.rates(), strict=True)
        return torch.stack([w * (f / (r + self.eps) - 1) for w, f, r in pairs]).sum(0)

    @torch.no_grad()
    def _activity(self, vlm: VLM, chosen: Sequence[Neurons], lessons: Sequence[Lesson], seed: int) -> list[Activity]:
        sums = [torch.zeros(4, mlp.width, dtype=torch.float64, device=vlm.device) for mlp in chosen]
        counts = [0] * len(chosen)
        real = torch.zeros(0)

        def hear(i: int, z: Tensor) -> None:
            z = z[real].float() if chosen[i].part == "llm" else z.flatten(0, -2).float()
            size = z.abs()
            terms = (size, size > self.active_above, z, z.square())
            sums[i] += torch.stack([term.sum(0, dtype=torch.float64) for term in terms])
            counts[i] += len(z)

        if lessons:
            drawn = Lessons(lessons, BATCH, seed)
            with listening(chosen, hear):
                for _ in range(self.batches):
                    batch = pack(vlm, drawn.draw())
                    real = tokens(batch)
                    logits(vlm, batch)
        return [Activity.of(total, count) for total, count in zip(sums, counts, strict=True)]


class Activity(NamedTuple):
    """How active the neurons of one MLP were on a number of tokens: a figure for each neuron."""

    tokens: int
    mean: Tensor  # of |z|
    active: Tensor  # how often |z| passed the threshold
    variance: Tensor
    energy: Tensor  # sum of z^2

    @classmethod
    def of(cls, total: Tensor, tokens: int) -> Activity:
        """From the sums of |z|, of activity, of z and of z^2 over so many tokens; silence if there was none."""
        size, active, signed, energy = total
        n = max(1, tokens)
        return cls(tokens, size / n, active, (energy / n - (signed / n).square()).clamp_min(0), energy)

    def rates(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What does not depend on how many tokens there were: mean size, share active, deviation, root mean square."""
        n = max(1, self.tokens)
        return self.mean, self.active / n, self.variance.sqrt(), (self.energy / n).sqrt()
