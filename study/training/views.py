"""Pictures as a model sees them while it is trained: some as they are, some turned, stretched, dimmed and noised.

They are changed as decoded pictures, before any image processor, so it works for every family of models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from study.data.image_edits import edge_colour
from study.data.picture import Picture
from study.model.byte_cache import ByteCache
from study.model.vision import Pixels, joined
from study.model.vlm import VLM

_MIDDLE = 127.5  # of the range of a pixel: dimming moves colours towards it or away

DECODED_BYTES = 2**30
"""Of decoded pictures that are kept: 0.34 MB each at the side of LLaVA-1.5, so 3,170 of them."""


class Views:
    """Prepares pictures for a model, a share of each batch augmented at random; the same seed gives the same pixels."""

    def __init__(self, vlm: VLM, share: float, seed: int) -> None:
        self.vlm, self.share = vlm, share
        self.random = np.random.default_rng(seed)
        self._decoded = ByteCache[Image.Image](DECODED_BYTES, lambda image: 3 * image.width * image.height)

    def __call__(self, pictures: Sequence[Picture]) -> tuple[Pixels, list[str | None]]:
        """Pixels, the last share of them augmented, with the key of each picture that is as it was."""
        plain = len(pictures) - round(len(pictures) * self.share)
        keys = [picture.key if i < plain else None for i, picture in enumerate(pictures)]
        parts = [self.vlm.pixels(pictures[:plain])] if plain else []
        if plain < len(pictures):
            changed = [augmented(self._image(picture), self.random) for picture in pictures[plain:]]
            parts.append(self.vlm.pixels_of(changed).to(self.vlm.device))
        return joined(parts), keys

    def _image(self, picture: Picture) -> Image.Image:
        """The decoded picture, its shorter side no larger than the model sees it: what is kept stays small."""
        kept = self._decoded.get(picture.key)
        if kept is None:
            image = picture.open()
            shrink = self.vlm.side / min(image.size)
            if shrink < 1:
                size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
                image = image.resize(size, Image.Resampling.BICUBIC)
            return self._decoded.put(picture.key, image)
        return kept


def augmented(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """An RGB picture of the same size, moved about and recoloured at random.

    It is turned by up to 16 degrees, scaled by up to 12 %, stretched by up to 25 %, shifted by up to 4 % of each side,
    dimmed or brightened by up to 25 % and noised. What comes in from outside has the mean colour of the edge.
    """
    angle, scale, stretch, down, right, light = random.uniform(-1, 1, 6)
    angle, scale, stretch = math.radians(16) * angle, 1 + 0.12 * scale, 1 + 0.25 * abs(stretch)
    width, height = image.size
    # out (x, y) comes from (a x + b y, c x + d y) + shift, all in units of half a side from the middle
    a, b, c, d = scale * math.cos(angle) * stretch, -math.sin(angle), math.sin(angle), scale * math.cos(angle)
    across = width / 2 * (1 - a - b + 0.08 * right)
    along = height / 2 * (1 - c - d + 0.08 * down)
    matrix = (a, b * width / height, across, c * height / width, d, along)
    colours = np.asarray(image)
    moved = image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=edge_colour(image)
    )
    values = random.standard_normal(colours.shape, np.float32)
    values *= 0.04 * _MIDDLE
    values += _MIDDLE - (1 + 0.25 * light) * _MIDDLE + 0.5  # conversion to whole numbers cuts off
    values += np.float32(1 + 0.25 * light) * np.asarray(moved)
    return Image.fromarray(np.clip(values, 0, 255, out=values).astype(np.uint8))
