"""PaliGemma and PaliGemma 2: SigLIP, a linear layer, and a Gemma that reads a prompt both ways (arXiv 2407.07726)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import transformers
from torch import Tensor
from transformers import BatchFeature, PreTrainedConfig
from transformers.processing_utils import ProcessorMixin

from study.model.families._family import Family


class PaliGemmaProcessor(transformers.PaliGemmaProcessor):
    """Takes a question without a picture, too, and writes it as one with a picture: its first token, a line break.

    Called like the stock class, so that a saved folder names that one.
    """

    def __call__(self, images: Any = None, text: Any = None, **options: Any) -> BatchFeature:
        """The stock class adds labels, which nobody here wants, and numpy warns of how it makes them."""
        made: BatchFeature = ProcessorMixin.__call__(self, images, text, return_token_type_ids=True, **options)
        return made

    def prepare_inputs_layout(  # type: ignore[override]
        self, images: Any = None, text: Any = None, **options: Any
    ) -> tuple[Any, ...]:
        """The stock class writes both beside a picture alone."""
        if images is not None:
            found: tuple[Any, ...] = super().prepare_inputs_layout(images, text, **options)  # type: ignore[no-untyped-call]
            return found
        asked: Sequence[str] = [text] if isinstance(text, str) else text
        return None, [f"{self.tokenizer.bos_token}{question}\n" for question in asked], None, None

    def validate_inputs(  # type: ignore[override]
        self, images: Any = None, text: Any = None, **options: Any
    ) -> None:
        """The stock class refuses questions without a picture."""
        if images is not None:
            super().validate_inputs(images, text, **options)


@dataclass(frozen=True)
class PaliGemma(Family):
    """Prompts are literal: the picture, the first token, the question and a line break.

    The prompt is a prefix whose tokens all see each other, those of the picture too. What a reply is made to begin with
    is the end of that prefix.
    """

    vision = ("vision_tower",)
    projector = ("multi_modal_projector",)
    llm = ("language_model",)
    learned = ()
    state_read = None
    processor = PaliGemmaProcessor
    prefix = True
    reply_type = 1
    chat_template = (
        "{% for turn in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}{% for part in turn['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )

    def masks(self, config: PreTrainedConfig, mask: Tensor, depth: Tensor, seen: Tensor) -> Tensor:
        """One mask for all layers, as the model takes it: a question is far shorter than PaliGemma 2's window, 4096."""
        return mask
