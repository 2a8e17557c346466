"""LLaVA-1.5 and what is built like it: CLIP, two linear layers, LLaMA."""

from __future__ import annotations

from dataclasses import dataclass

from study.model.families._family import Family


@dataclass(frozen=True)
class Llava(Family):
    """The projector reads a hidden state of the tower (-2): the layers behind it and the last norm are dropped."""

    vision = ("vision_tower",)
    projector = ("multi_modal_projector",)
    llm = ("language_model",)
    learned = ()
    state_read = "vision_feature_layer"
