"""The side of the square that every picture is brought to, for models that would take any: nearest to `SIDE`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SIDE = 392
"""Side in pixels that pictures are given where a model would take any: 28 patches of 14, 196 tokens of Qwen."""


def side_within_areas(image_processor: Any) -> int:
    """Where the limits of `size` are areas in pixels, and sides are whole merged patches."""
    size, unit = image_processor.size, image_processor.patch_size * image_processor.merge_size
    return _nearest(unit, math.sqrt(size["shortest_edge"]), math.sqrt(size["longest_edge"]))


def side_within_edges(image_processor: Any, config: PreTrainedConfig) -> int:
    """Where the limits of `size` are edges, and sides are whole patches of a tower that has positions for so many."""
    size, vision = image_processor.size, config.vision_config
    return _nearest(vision.patch_size, size["shortest_edge"], min(size["longest_edge"], vision.image_size))


def _nearest(unit: int, least: float, most: float) -> int:
    """The multiple of `unit` from `least` to `most` that is nearest to `SIDE`."""
    return unit * min(max(round(SIDE / unit), math.ceil(least / unit)), max(1, math.floor(most / unit)))
