"""Qwen2.5-VL: Qwen2-VL with a gated MLP in its tower, most of whose layers attend within windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from study.model.families._family import Family
from study.model.families._sides import side_within_areas


@dataclass(frozen=True)
class Qwen2_5_VL(Family):
    """The projector lies inside the tower, which is read to its end."""

    vision = ("visual",)
    projector = ("visual.merger",)
    llm = ("language_model",)
    learned = ()
    state_read = None

    def side(self, image_processor: Any, config: PreTrainedConfig) -> int | None:
        """Any picture has as many tokens as its area has room for."""
        return side_within_areas(image_processor)

    def axes(self, model: PreTrainedModel) -> int:
        """Time, height and width."""
        return 3
