"""LLaVA-NeXT: LLaVA with the tokens of a picture's tiles, in rows that end in a learned one."""

from __future__ import annotations

from dataclasses import dataclass

from study.model.families._family import Family


@dataclass(frozen=True)
class LlavaNext(Family):
    """As in LLaVA, what is behind the hidden state that the projector reads is dropped."""

    vision = ("vision_tower",)
    projector = ("multi_modal_projector",)
    llm = ("language_model",)
    learned = ("image_newline",)
    state_read = "vision_feature_layer"
