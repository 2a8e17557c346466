"""SmolVLM2: built like Idefics3, under a name of its own since it takes videos."""

from __future__ import annotations

from dataclasses import dataclass

import transformers

from study.model.families._family import Family


class SmolVLMProcessor(transformers.Idefics3Processor):
    """Idefics3's, which writes the same prompts: SmolVLM's cannot be made without torchvision and num2words.

    Called like that one, so that a saved folder names the stock class.
    """


@dataclass(frozen=True)
class SmolVLM(Family):
    """The whole tower is read, to its last norm."""

    vision = ("vision_model",)
    projector = ("connector",)
    llm = ("text_model",)
    learned = ()
    state_read = None
    processor = SmolVLMProcessor
