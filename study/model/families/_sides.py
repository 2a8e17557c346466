"""The side of the square that every picture is brought to, for models that would take any: nearest to `SIDE`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SIDE = 392
"""Side in pixels that pictures are given where a model would take any: 28 patches of 14, 196 tokens of Qwen."""

USUAL_PATCH = 14
"""Side in pixels of a patch, where a configuration does not say."""


def found_side(image_processor: Any, config: PreTrainedConfig) -> int | None:
    """The side for a processor that no file describes, from what it says of itself; None if it makes squares anyway."""
    vision = vision_config(config)
    if hasattr(image_processor, "merge_size") and "shortest_edge" in sizes(image_processor):
        return side_within_areas(image_processor)
    if getattr(image_processor, "max_image_size", None):
        largest = image_processor.max_image_size
        most = int(largest["longest_edge"] if isinstance(largest, Mapping) else largest)
        return min(most, sizes(image_processor).get("height", most))  # Step: what is larger has pieces beside the whole
    if "longest_edge" in sizes(image_processor) and hasattr(image_processor, "do_image_splitting"):
        return side_within_edges(image_processor, config)
    if hasattr(image_processor, "image_grid_pinpoints"):
        return number(vision.image_size)
    if hasattr(image_processor, "max_soft_tokens"):  # Gemma 4: as many tokens as fit
        unit = number(image_processor.patch_size) * image_processor.pooling_kernel_size
        return math.isqrt(image_processor.max_soft_tokens) * int(unit)
    if hasattr(image_processor, "encoder_patch_size"):  # LFM2
        unit = number(image_processor.encoder_patch_size) * image_processor.downsample_factor
        return math.isqrt(image_processor.max_image_tokens) * int(unit)
    if "longest_edge" in sizes(image_processor):  # Pixtral
        unit, most = number(image_processor.patch_size), sizes(image_processor)["longest_edge"]
        return _nearest(unit, unit, min(most, number(getattr(vision, "image_size", most))))
    if hasattr(image_processor, "scale_resolution"):  # MiniCPM
        return number(image_processor.scale_resolution)
    if hasattr(image_processor, "merge_size"):  # Kimi, Muse, GLM-5
        patch, merged = number(image_processor.patch_size), number(image_processor.merge_size)
        fewest, tokens = (getattr(image_processor, f"{end}_image_tokens", None) for end in ("min", "max"))
        most = tokens * merged**2 if tokens else image_processor.max_patches
        return _nearest(patch * merged, patch * merged * math.sqrt(fewest or 1), math.isqrt(most) * patch)
    if hasattr(image_processor, "min_num_patches"):  # Nemotron
        patch = number(image_processor.patch_size)
        fewest, limit = image_processor.min_num_patches, image_processor.max_num_patches or math.inf
        merged = patch * round(1 / image_processor.downsample_ratio)
        return _nearest(merged, math.sqrt(fewest) * patch, math.sqrt(min(limit, SIDE**2)) * patch)
    if "image_grid_thw" in getattr(image_processor, "model_input_names", ()):  # Inkling cuts a picture as it is
        unit = sizes(image_processor)["height"]
        return _nearest(unit, unit, SIDE)
    tiles = any(hasattr(image_processor, name) for name in ("max_patches", "max_crops", "max_image_tiles"))
    return number(sizes(image_processor)["height"]) if tiles and "height" in sizes(image_processor) else None


def tower_side(image_processor: Any, config: PreTrainedConfig) -> int:
    """The side of the squares that a processor makes by itself: the tower's, or else its own."""
    stated = getattr(vision_config(config), "image_size", None)
    size = sizes(image_processor)
    return number(stated or size.get("height") or size.get("shortest_edge") or SIDE)


def vision_config(config: PreTrainedConfig) -> Any:
    """The configuration of the vision tower; the whole one if none is set apart."""
    named = (getattr(config, name, None) for name in ("vision_config", "vision_tower_config", "vision"))
    return next((found for found in named if found is not None), config)


def patch_side(config: PreTrainedConfig) -> int:
    """The side in pixels of a patch of the vision tower."""
    return number(getattr(vision_config(config), "patch_size", None) or USUAL_PATCH)


def sizes(image_processor: Any) -> dict[str, int]:
    """The `size` of an image processor as a dictionary."""
    size = getattr(image_processor, "size", None)
    if isinstance(size, int):
        return {"height": size, "width": size}
    return {name: value for name, value in dict(size or {}).items() if value is not None}


def number(size: Any) -> int:
    """A size that may be given for each side or layer: the largest."""
    if isinstance(size, Mapping):
        size = list(size.values())
    return int(max(size)) if isinstance(size, list | tuple) else int(size)


def side_within_areas(image_processor: Any) -> int:
    """Where the limits of `size` are areas in pixels, and sides are whole merged patches."""
    size, unit = sizes(image_processor), number(image_processor.patch_size) * number(image_processor.merge_size)
    return _nearest(unit, math.sqrt(size["shortest_edge"]), math.sqrt(size["longest_edge"]))


def side_within_edges(image_processor: Any, config: PreTrainedConfig) -> int:
    """Where the limits of `size` are edges, and sides are whole patches of a tower that has positions for so many."""
    size, vision = sizes(image_processor), config.vision_config
    return _nearest(vision.patch_size, size["shortest_edge"], min(size["longest_edge"], vision.image_size))


def _nearest(unit: int, least: float, most: float) -> int:
    """The multiple of `unit` from `least` to `most` that is nearest to `SIDE`."""
    return unit * min(max(round(SIDE / unit), math.ceil(least / unit)), max(1, math.floor(most / unit)))
