"""PaliGemma and PaliGemma 2: SigLIP, a linear layer, and a Gemma that reads a prompt both ways (arXiv 2407.07726)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
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

    def token_types(self, inputs: Collection[str], shown: Tensor) -> dict[str, Tensor]:
        """Those of a prompt, of which all tokens are alike; a reply has `reply_type`."""
        return {"token_type_ids": torch.zeros_like(shown, dtype=torch.long)}

    def masks(self, config: PreTrainedConfig, mask: Tensor, depth: Tensor, seen: Tensor) -> Tensor:
        """One mask for all layers, which is all that the model takes of a caller.

        Raises `ValueError` for a row that is longer than the window of some layers (PaliGemma 2, 4096 tokens).
        """
        window = getattr(config.get_text_config(), "sliding_window", None)
        if window and mask.shape[-1] > window:
            raise ValueError(
                f"a row of {mask.shape[-1]} tokens is longer than the window of {window} that some layers see, and "
                "transformers takes one mask for all layers: choose a PaliGemma for smaller pictures"
            )
        return mask
