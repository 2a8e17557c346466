"""Where families of multimodal LLMs differ, said once: how processors load, what side pictures get, which layers see.

Every family below is tested: LLaVA-1.5, LLaVA-NeXT, Idefics2, Idefics3 (SmolVLM), Qwen2-VL, Qwen2.5-VL, Gemma 3.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor, nn
from transformers import AutoProcessor, PreTrainedConfig
from transformers.processing_utils import ProcessorMixin

from study.store import read_json

SIDE = 392
"""Side in pixels that pictures are given where a model would take any: 28 patches of 14, 196 tokens of Qwen."""


class _Pictures:
    """The initialiser of a Qwen processor that has no videos: the stock one cannot be made without torchvision."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any
    ) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)  # type: ignore[arg-type]


class Qwen2VLProcessor(_Pictures, transformers.Qwen2VLProcessor):
    """Called like its parent, so that a saved folder names the stock class."""


class Qwen2_5_VLProcessor(_Pictures, transformers.Qwen2_5_VLProcessor):
    """Called like its parent, so that a saved folder names the stock class."""


_OWN: dict[str, type[ProcessorMixin]] = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor}


def load_processor(folder: Path) -> ProcessorMixin:
    """The processor of a Hugging Face folder, with image splitting off (one picture is one picture).

    Raises `ValueError` naming the folder if there is none for images and text, `OSError` if there is none at all.
    """
    config = folder / "config.json"
    own = _OWN.get(read_json(config).get("model_type", "")) if config.exists() else None
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
    if hasattr(processor.image_processor, "do_image_splitting"):
        processor.image_processor.do_image_splitting = False
    return processor


def square_side(image_processor: Any, config: PreTrainedConfig) -> int | None:
    """The side in pixels of the square that every picture is brought to first; None where the processor sees to it.

    Qwen, Idefics and LLaVA-NeXT give pictures of different shapes different numbers of tokens. In a study all take
    the same: the side nearest to `SIDE` that the processor's own limits allow, or the tower's own for those that have
    one (Idefics3, LLaVA-NeXT).
    """
    size = image_processor.size
    if hasattr(image_processor, "merge_size"):  # limits are areas, sides are whole merged patches
        unit = image_processor.patch_size * image_processor.merge_size
        return _nearest(unit, math.sqrt(size["shortest_edge"]), math.sqrt(size["longest_edge"]))
    if hasattr(image_processor, "max_image_size"):
        return int(image_processor.max_image_size["longest_edge"])
    if hasattr(image_processor, "do_image_splitting"):
        vision = config.vision_config
        return _nearest(vision.patch_size, size["shortest_edge"], min(size["longest_edge"], vision.image_size))
    if hasattr(image_processor, "image_grid_pinpoints"):
        return int(config.vision_config.image_size)
    return None


def _nearest(unit: int, least: float, most: float) -> int:
    """The multiple of `unit` from `least` to `most` that is nearest to `SIDE`."""
    return unit * min(max(round(SIDE / unit), math.ceil(least / unit)), max(1, math.floor(most / unit)))


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


def read_layers(tower: nn.Module, config: PreTrainedConfig) -> list[nn.Module]:
    """The layers of a vision tower whose output the model reads, first to last; LLaVA ignores those at the end."""
    layers = _layers(tower)
    layer = getattr(config, "vision_feature_layer", -1)
    chosen = layer if isinstance(layer, list | tuple) else [layer]
    return layers[: max(i if i >= 0 else len(layers) + 1 + i for i in chosen)]


def skip_unread(tower: nn.Module, config: PreTrainedConfig) -> None:
    """Let the layers of a vision tower whose output the model does not read hand on what they are given, at no cost.

    They keep their weights and their place among the hidden states, which the model may count from the end.
    """
    for layer in _layers(tower)[len(read_layers(tower, config)) :]:
        layer.forward = _handed_on


def _handed_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _layers(tower: nn.Module) -> list[nn.Module]:
    return next(list(module) for module in tower.modules() if isinstance(module, nn.ModuleList))


def unread(tower: nn.Module, config: PreTrainedConfig) -> frozenset[str]:
    """The tower's parameters that no gradient reaches, by their name in the tower.

    LLaVA's kin take the hidden state after a layer: what is defined after that layer (further layers, a final norm, a
    pooling head) is dropped. All others read their tower to the end.
    """
    if not hasattr(config, "vision_feature_layer"):
        return frozenset()
    names = [name for name, _ in tower.named_parameters()]
    last = {id(weight) for weight in read_layers(tower, config)[-1].parameters()}
    end = max(i for i, weight in enumerate(tower.parameters()) if id(weight) in last)
    return frozenset(names[end + 1 :])
