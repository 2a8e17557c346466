"""Idefics2: SigLIP at the resolution of the picture, a perceiver that makes a fixed number of tokens of it, Mistral."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from study.model.families._family import Family
from study.model.families._sides import side_within_edges


@dataclass(frozen=True)
class Idefics2(Family):
    """The whole tower is read, to its last norm."""

    vision = ("vision_model",)
    projector = ("connector",)
    llm = ("text_model",)
    learned = ()
    state_read = None

    def side(self, image_processor: Any, config: PreTrainedConfig) -> int | None:
        """The tower sees pictures of any shape between the processor's shortest and longest edge."""
        return side_within_edges(image_processor, config)
