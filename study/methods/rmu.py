"""RMU: steer what a layer says of the forget lessons to noise, keep the rest (Li et al. 2024, arXiv 2403.03218)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from study.contracts import Material, Method, Request
from study.core import validation
from study.core.errors import Refused
from study.core.hashing import before
from study.core.terms import Held, Part
from study.model.likelihood import answer_lengths, answer_sums
from study.model.packing import Batch, at_answers, pack
from study.model.vlm import VLM
from study.training import losses
from study.training.lesson_sampler import Lessons
from study.training.loop import frozen, train
from study.training.schedule import Schedule

Variant = Literal["paper", "released"]


@dataclass(frozen=True)
class RMU(Method):
    """L = E_forget ||h - coefficient u||^2 + alpha E_retain ||h - h_0||^2, arXiv 2403.03218, section 4.

    h is what LLM layer `layer` says where an answer token is predicted, h_0 the same before unlearning, u one random
    unit vector with no negative entry; means over tokens and over the width, where the paper sums over the width.
    `released` is the loss of open-unlearning (revision d3d7cf9): h at the answer tokens themselves, and the mean over
    answers of the means over their tokens. What is trained is `trains`, with both forms.
    """

    layer: int = 7
    """The layer of the LLM, from 0; a negative one counts from the end (published: 7 of 32)."""
    coefficient: float = 2.0
    """Length of what the forget states are steered to (open-unlearning: 2, in its class 20; CLEAR: 300)."""
    alpha: float = 1.0
    """Weight of the retain states (open-unlearning: 1)."""
    modality: Material = "all"
    trains: tuple[Part, ...] = ("llm",)
    schedule: Schedule = Schedule()
    variant: Variant = field(default="paper", metadata=before("paper"))
    """Which states are steered, and what is a mean: the paper's, or that of the code of open-unlearning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.positive(self, "coefficient")
        validation.not_negative(self, "alpha")

    @property
    def holds(self) -> Held:
        """The model as it was, to compare with."""
        return "copy"

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Steer the forget states to noise. Raises `Refused` if the model has no such layer."""
        request = request.only(self.modality)
        vanilla = frozen(vlm, self.trains, self.schedule)
        forget = Lessons(request.forget, self.schedule, request.seed)
        retain = Lessons(request.retain, self.schedule, request.seed + 1)
        width = vlm.model.config.get_text_config().hidden_size
        noise = torch.rand(1, width, generator=torch.Generator().manual_seed(request.seed))
        target = (self.coefficient * noise / noise.norm()).to(vlm.device)

        def loss(step: int) -> Tensor:
            batch = self._placed(pack(vlm, forget.draw()))
            total = self._apart(states(vlm, batch, self.layer), target, batch)
            if self.alpha:
                batch = self._placed(pack(vlm, retain.draw()))
                with torch.no_grad():
                    as_it_was = states(vanilla, batch, self.layer)
                total = total + self.alpha * self._apart(states(vlm, batch, self.layer), as_it_was, batch)
            return total

        train(vlm, self.trains, self.schedule, loss, seed=request.seed)
        return vlm

    def _placed(self, batch: Batch) -> Batch:
        """The batch with the places whose states count: an answer's tokens follow each other and its prompt."""
        return replace(batch, source=batch.source + 1) if self.variant == "released" else batch

    def _apart(self, said: Tensor, wanted: Tensor, batch: Batch) -> Tensor:
        if self.variant == "paper":
            return losses.steering(said, wanted)
        per_token = (said - wanted).square().mean(-1)
        return (answer_sums(per_token, batch) / answer_lengths(batch)).mean()


def states(vlm: VLM, batch: Batch, layer: int) -> Tensor:
    """What a layer of the LLM says at the places that predict answer tokens, (T, D) float32.

    Neither the layers above it nor the output head are run. Raises `Refused` if there is no such layer, or no
    norm behind them.
    """
    return at_answers(_ending_at(vlm, layer), batch, lambda said: said).float()


def _ending_at(vlm: VLM, layer: int) -> VLM:
    """The same weights, of which a layer is the last of the LLM and nothing normalizes what it says."""
    model = llm = _shallow(vlm.model)
    for name in vlm.prefixes["llm"].split("."):
        below = _shallow(getattr(llm, name))
        setattr(llm, name, below)
        llm = below
    depth = len(llm.layers)
    if not -depth <= layer < depth:
        raise Refused(f"layer={layer}: the LLM has {depth} layers, use one from {-depth} to {depth - 1}")
    if not hasattr(llm, "norm"):  # it would go on to normalize what is to be compared as it is
        raise Refused(f"the LLM of {type(vlm.model).__name__} has no final norm called norm, which RMU leaves out")
    llm.layers, llm.norm = llm.layers[: layer % depth + 1], nn.Identity()
    return replace(vlm, model=model)


def _shallow(module: nn.Module) -> Any:
    """The same module, of which children can be exchanged."""
    found = copy.copy(module)
    found._modules = dict(module._modules)
    return found
