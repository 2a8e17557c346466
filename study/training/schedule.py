"""How a model is trained: steps, batch, optimizer, learning rate, precision."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from study.core import validation
from study.core.hashing import before

FLOOR = 0.03
"""The fraction of the peak to which the learning rate falls. At 0 the last steps would be computed and change nothing;
3 % was chosen by trial on the tiny study."""
STEPS = 100
"""The steps of a schedule that does not say how long it is."""
Decay = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bfloat16"]
Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True)
class Schedule:
    """Steps, batch, optimizer, learning rate and precision. A group is one picture, or none, with its lessons."""

    steps: int = STEPS
    """Optimizer steps."""
    epochs: float = field(default=0.0, metadata=before(0.0))
    """Instead of steps, how often every lesson is drawn on average: more people take more steps (`in_steps`). Text
    lessons are then drawn as often as those with a picture, unless `texts` is set. 0 counts steps."""
    learning_rate: float = 2e-5
    """Peak learning rate."""
    optimizer: Optimizer = "adamw"
    """AdamW, or SGD with momentum 0.9."""
    pictures: int = 4
    """Pictures per step."""
    lessons_per_picture: int = 8
    """Lessons drawn for each picture."""
    texts: int = 0
    """Groups of text-only lessons per step, where the set has any."""
    lessons_per_text: int = 8
    """Lessons in each text-only group."""
    warmup: int = 0
    """Steps of linear warmup."""
    decay: Decay = "linear"
    """How the learning rate falls, to 3 % of its peak."""
    beta2: float = 0.999
    """AdamW's second moment decay."""
    weight_decay: float = 0.0
    """Weight decay, decoupled in AdamW; must be 0 where a mask protects weights."""
    clip: float = 1.0
    """Maximum gradient norm; larger gradients are scaled down to it."""
    accumulate: int = 1
    """Batches per optimizer step."""
    precision: Precision = "float32"
    """Autocast precision of the forward pass."""
    checkpoint: bool = field(default=False, compare=False)  # it changes no number, so it does not enter the content key
    """Activation checkpointing: each layer keeps only its inputs and is computed again in the backward pass. A third
    more computation, and memory for the activations of one layer instead of all."""
    lora_rank: int = 0
    """Rank of low-rank adapters on every linear layer of the trained parts, which are trained instead of the weights
    and then merged into them (published: 16); 0 trains the weights themselves."""
    lora_alpha: int = 16
    """The adapters' scale is `lora_alpha / lora_rank`."""
    lora_dropout: float = 0.05
    """Dropout before the adapters."""
    worst_loss: float = 1e4
    """A loss above it, or below its negative (ascent has no minimum), has diverged. A uniform guess over a vocabulary
    of 32,000 costs 10.4 nats per token, so no useful loss comes near it."""
    worst_weight: float = 1e3
    """A trained weight whose absolute value exceeds this has exploded: useful ones are orders of magnitude smaller."""

    def __post_init__(self) -> None:
        validation.check_literals(self)
        for name in ("steps", "pictures", "lessons_per_picture", "lessons_per_text", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use at least 1")
        for name in ("learning_rate", "weight_decay"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name}={getattr(self, name)}: use a finite number that is not negative")
        if not 0 < self.beta2 < 1:
            raise ValueError(f"beta2={self.beta2}: use a number between 0 and 1")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout={self.lora_dropout}: use a fraction from 0 to below 1")
        validation.not_negative(self, "epochs", "texts", "warmup", "lora_rank")
        if self.epochs and self.steps != STEPS:
            raise ValueError(
                f"steps={self.steps} with epochs={self.epochs:g}: how long is said in one of them; set epochs to 0 to "
                "count steps"
            )
        validation.positive(self, "clip", "lora_alpha", "worst_loss", "worst_weight")

    def rate(self, step: int) -> float:
        """The learning rate at a step (from 0), as a fraction of the peak; steps must have been counted."""
        assert not self.epochs, "a schedule in epochs trains once `in_steps` has counted its steps"
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        done = step / self.steps
        fall = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[self.decay]
        return warm * (FLOOR + (1 - FLOOR) * fall)
