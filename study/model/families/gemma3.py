"""Gemma 3: SigLIP, a linear layer behind average pooling, and an LLM most of whose layers see a window only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from study.model.families._family import Family


@dataclass(frozen=True)
class Gemma3(Family):
    """The whole tower is read, to its last norm."""

    vision = ("vision_tower",)
    projector = ("multi_modal_projector",)
    llm = ("language_model",)
    learned = ()
    state_read = None

    def side(self, image_processor: Any, config: PreTrainedConfig) -> int | None:
        """None: the processor brings every picture to the square of the tower, whatever its shape."""
        return None

    def mutual(self, model: PreTrainedModel, inputs: Collection[str]) -> bool:
        """A picture is read as a whole, its later tokens by its earlier ones too."""
        return True
