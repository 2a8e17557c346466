"""Qwen2-VL: a tower for pictures of any shape that ends in a merger of tokens, and a Qwen2 that knows their grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from study.model.families._family import Family
from study.model.families._sides import side_within_areas


@dataclass(frozen=True)
class Qwen2VL(Family):
    """The projector lies inside the tower, which is read to its end."""

    vision = ("visual",)
    projector = ("visual.merger",)
    llm = ("language_model",)
    learned = ()
    state_read = None

    def widths(self, vision: PreTrainedConfig) -> tuple[int, int]:
        """What the configuration calls the hidden size is the width of the LLM."""
        return vision.embed_dim, int(vision.embed_dim * vision.mlp_ratio)

    def side(self, image_processor: Any, config: PreTrainedConfig) -> int | None:
        """Any picture has as many tokens as its area has room for."""
        return side_within_areas(image_processor)

    def axes(self, model: PreTrainedModel) -> int:
        """Time, height and width."""
        return 3
