"""LLaVA-1.5 and what is built like it: CLIP, two linear layers, LLaMA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from study.model.families._family import Family
from study.model.families._sides import found_side


@dataclass(frozen=True)
class Llava(Family):
    """The projector reads a hidden state of the tower (-2): the layers behind it and the last norm are dropped."""

    vision = ("vision_tower",)
    projector = ("multi_modal_projector",)
    llm = ("language_model",)
    learned = ()
    state_read = "vision_feature_layer"

    def side(self, image_processor: Any, config: PreTrainedConfig) -> int | None:
        """None where CLIP's processor crops every picture to the square of the tower; Pixtral's keeps the shape."""
        return found_side(image_processor, config)
