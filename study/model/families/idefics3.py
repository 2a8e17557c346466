"""Idefics3 and the first SmolVLM: SigLIP, pixel shuffle with a linear layer, LLaMA."""

from __future__ import annotations

from dataclasses import dataclass

from study.model.families._family import Family


@dataclass(frozen=True)
class Idefics3(Family):
    """The whole tower is read, to its last norm."""

    vision = ("vision_model",)
    projector = ("connector",)
    llm = ("text_model",)
    learned = ()
    state_read = None
