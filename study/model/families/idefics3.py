"""Idefics3 and the first SmolVLM: SigLIP, pixel shuffle with a linear layer, LLaMA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from study.model.families._family import Family


@dataclass(frozen=True)
class Idefics3(Family):
    """The whole tower is read, to its last norm."""

    vision = ("vision_model",)
    projector = ("connector",)
    llm = ("text_model",)
    learned = ()
    state_read = None

    def side(self, image_processor: Any, config: PreTrainedConfig) -> int | None:
        """The tower's, which every picture and every tile is brought to."""
        return int(image_processor.max_image_size["longest_edge"])
