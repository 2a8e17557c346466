"""How the processor of a model folder is loaded, and how it expands the placeholders of prompts."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.core.files import visible
from study.model.families._family import family_of
from study.model.weight_files import AGAIN, read_file, read_settings

if TYPE_CHECKING:
    from transformers.processing_utils import ProcessorMixin

NAMED_IN = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""The files of a folder that may name the class of its processor, in the order in which transformers asks them."""
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
"""The files of which a tokenizer needs one."""
LENGTHS = ("max_length", "truncation", "truncation_strategy", "stride", "padding", "pad_to_multiple_of")
"""What a tokenizer's settings may say of the length of its texts."""
DAY = date(2024, 7, 26)
"""The day that the templates of Llama write where there is no clock."""
_TODAY = re.compile(r"strftime_now\s*\(\s*(?:format\s*=\s*)?(?P<quote>['\"])(?P<format>.*?)(?P=quote)\s*\)")
VISION = "pip install 'mllm-unlearning-study[vision]'"
"""The remedy for a processor or a tower that needs torchvision or timm."""


def load_processor(folder: Path) -> ProcessorMixin:
    """The processor of a Hugging Face folder, with image splitting off (one picture is one picture).

    What it would need for videos and audio alone is left out. Raises `ValueError` naming the folder if there is none
    for images and text, or if it needs a package that is not installed.
    """
    from study.model.families._images_and_text import images_and_text

    config = folder / "config.json"
    family = family_of(read_settings(config).get("model_type", "") if config.exists() else "")
    own: Any = family.processor or _class_of(folder)
    needed = "an image-and-text processor (processor_config.json) is needed"
    if own is None:
        raise ValueError(f"{folder}: {needed}, and no file there names its class")
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "backend": "pil"}
    try:
        processor: Any = images_and_text(own).from_pretrained(folder, **options)
    except ImportError as error:
        raise ValueError(f"{folder}: {without_package(error)}") from error
    except (OSError, ValueError) as error:
        _check_readable(folder)
        if missing := without_package(error):
            raise ValueError(f"{folder}: {missing}") from error
        raise ValueError(f"{folder}: {needed}, and {own.__name__} does not load ({error})") from error
    if getattr(processor, "image_processor", None) is None:
        raise ValueError(f"{folder}: {own.__name__} is no processor for pictures; {needed}")
    template = folder / "chat_template.jinja"
    if not getattr(processor, "chat_template", None) and template.exists():  # classes of models that do not chat
        processor.chat_template = template.read_text(encoding="utf-8")
    processor.chat_template = _dated(getattr(processor, "chat_template", None) or family.chat_template or None)
    family.keep_whole(processor.image_processor)
    _keep_length(processor.tokenizer)
    return processor  # type: ignore[no-any-return]


def _check_readable(folder: Path) -> None:
    """Raise `ValueError` that names the file for which a processor does not load, if one cannot be read at all."""
    for path in visible(folder, "*.json"):
        read_file(path)
    for path in visible(folder, "*.jinja"):
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{folder}: {path.name} is not UTF-8 ({error}); {AGAIN}") from error
    if not any((folder / name).exists() for name in VOCABULARIES):
        raise ValueError(f"{folder}: no {VOCABULARIES[0]} there; copy it from where the model was published")


def _keep_length(tokenizer: Any) -> None:
    """Let a tokenizer that was saved in training neither cut texts nor fill them up: processors would do as it says."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    for name in LENGTHS:
        tokenizer.init_kwargs.pop(name, None)


def _dated(template: Any) -> Any:
    """A chat template that writes the date, or one of several, writes that of `DAY`: prompts are the same every day."""
    if isinstance(template, dict):
        return {name: _dated(one) for name, one in template.items()}
    if not isinstance(template, str):
        return template
    return _TODAY.sub(lambda found: repr(DAY.strftime(found["format"])), template)


def without_package(error: Exception) -> str:
    """What is missing, and the remedy, if `error` says that a package is; else empty."""
    for package in ("torchvision", "timm"):
        if package in str(error).lower():
            return f"this model's pictures need {package}: {VISION}"
    return f"a package is missing ({str(error).strip().splitlines()[0]})" if isinstance(error, ImportError) else ""


def _class_of(folder: Path) -> type[ProcessorMixin] | None:
    """The class of a folder's processor: named in its files, or the one that belongs to its configuration.

    Raises `ValueError` naming the class if transformers has neither.
    """
    from transformers import AutoConfig, __version__
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name

    files = [folder / name for name in NAMED_IN]
    named = [name for file in files if file.exists() and (name := read_settings(file).get("processor_class"))]
    for name in named:
        found: type[ProcessorMixin] | None = processor_class_from_name(name)
        if found is not None:
            return found
    config = type(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    mapped: Any = PROCESSOR_MAPPING.get(config, None)
    if mapped is None and named:
        raise ValueError(f"{folder}: its processor is a {named[0]}, which transformers {__version__} does not have")
    return mapped  # type: ignore[no-any-return]


class _Seen:
    """An image processor that looks at the first pictures it is shown and answers for all later ones of that number.

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
    """The family's own processor for prompts: expands placeholders as always, but prepares pictures only once.

    Every prompt must have as many as the first.
    """
    found = copy.copy(processor)
    found.image_processor = _Seen(processor.image_processor)
    return found


def special_tokens(processor: ProcessorMixin) -> frozenset[str]:
    """The texts that the tokenizer of a processor reads as something else than text."""
    tokenizer: Any = processor.tokenizer
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return frozenset([*tokenizer.all_special_tokens, *added])


def unknown(processor: ProcessorMixin, texts: Sequence[str]) -> list[str]:
    """Those of the texts that are written with the tokenizer's token for what it does not know, if it has one."""
    tokenizer: Any = processor.tokenizer
    if tokenizer.unk_token_id is None or not texts:
        return []
    ids = tokenizer(list(texts), add_special_tokens=False).input_ids
    return [text for text, written in zip(texts, ids, strict=True) if tokenizer.unk_token_id in written]
