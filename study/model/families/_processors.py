"""How the processor of a model folder is loaded, and how it expands the placeholders of prompts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.core.files import read_json
from study.model.families._family import family_of

if TYPE_CHECKING:
    from transformers.processing_utils import ProcessorMixin


def load_processor(folder: Path) -> ProcessorMixin:
    """The processor of a Hugging Face folder, with image splitting off (one picture is one picture).

    Raises `ValueError` naming the folder if there is none for images and text, `OSError` if there is none at all.
    """
    from transformers import AutoProcessor, ProcessorMixin

    config = folder / "config.json"
    family = family_of(read_json(config).get("model_type", "") if config.exists() else "")
    own = family.processor
    needed = "an image-and-text processor (processor_config.json) is needed"
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "backend": "pil"}
    try:
        processor: Any = (own or AutoProcessor).from_pretrained(folder, **options)
    except (OSError, ValueError) as error:
        if own is None:
            raise
        raise ValueError(f"{folder}: {needed}, and {own.__name__} does not load ({error})") from error
    if not isinstance(processor, ProcessorMixin):  # AutoProcessor falls back without a word
        raise ValueError(f"{folder}: the processor loads as a bare {type(processor).__name__}; {needed}")
    family.keep_whole(processor.image_processor)
    return processor


class _Seen:
    """An image processor that looks at the first picture it is shown and answers for every later one.

    In a study all pictures take the same tokens, so prompts need not be expanded from pixels each time.
    """

    def __init__(self, image_processor: Any) -> None:
        self._real, self._made = image_processor, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __call__(self, *images: Any, **options: Any) -> Any:
        if self._made is None:
            self._made = self._real(*images, **options)
        return copy.copy(self._made)  # Idefics3 takes entries out of what it gets


def expander(processor: ProcessorMixin) -> ProcessorMixin:
    """The family's own processor for prompts: expands placeholders as always, but prepares one picture only, once."""
    found = copy.copy(processor)
    found.image_processor = _Seen(processor.image_processor)
    return found


def special_tokens(processor: ProcessorMixin) -> frozenset[str]:
    """The texts that the tokenizer of a processor reads as something else than text."""
    tokenizer: Any = processor.tokenizer
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return frozenset([*tokenizer.all_special_tokens, *added])
