"""LLaVA-NeXT: LLaVA with the tokens of a picture's tiles, in rows that end in a learned one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from study.model.families._family import Family


@dataclass(frozen=True)
class LlavaNext(Family):
    """As in LLaVA, what is behind the hidden state that the projector reads is dropped."""

    vision = ("vision_tower",)
    projector = ("multi_modal_projector",)
    llm = ("language_model",)
    learned = ("image_newline",)
    state_read = "vision_feature_layer"

    def side(self, image_processor: Any, config: PreTrainedConfig) -> int | None:
        """The tower's: a larger picture is cut into more tiles, another shape into other ones."""
        return int(config.vision_config.image_size)
