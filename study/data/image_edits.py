"""Changed pictures: RGB images in, RGB images of the same or of another size out, the same bytes on every machine."""

from __future__ import annotations

import io
import itertools
import math
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from study.data.benchmark import Question
from study.data.picture import Picture

Transform = Literal["crop", "shrink", "blur", "noise", "rotate", "flip", "brighten", "darken", "grey", "jpeg", "border"]

GREY = (128, 128, 128)
WIDE, HIGH = 6, 11  # a letter of PIL's bitmap font, which needs no font file and knows no kerning
MARGIN = 1  # some letters begin left of their cell
_TYPEWRITTEN = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--")  # curly quotes and dashes


def encoded(image: Image.Image, where: str) -> Picture:
    """The image as a lossless picture."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return Picture(buffer.getvalue(), where)


def shown_instead(questions: Sequence[Question], changed: Mapping[Picture, Picture]) -> list[Question]:
    """The questions about other pictures; a question whose picture is not in `changed` stays as it is."""
    return [replace(q, picture=changed.get(q.picture, q.picture)) if q.picture else q for q in questions]


def transformed(image: Image.Image, kind: Transform, strength: float, seed: int) -> Image.Image:
    """An RGB picture changed by as much as `strength` in (0, 1] says, of the same size.

    At full strength: the middle half of each side; the whole at half its size on grey; a blur of a twentieth of the
    shorter side; noise of a quarter of the range (the only one that asks for `seed`); 45 degrees to the left; twice or
    a fifth of the brightness; no colour; the quality 5 of JPEG (the least that its authors advise to use); a black
    border, over the picture, of a fifth of the shorter side. A picture is mirrored wholly at any strength.
    """
    if kind == "crop":
        return _middle(image, 1 - strength / 2).resize(image.size, Image.Resampling.BICUBIC)
    if kind == "shrink":
        size = (max(1, round(image.width * (1 - strength / 2))), max(1, round(image.height * (1 - strength / 2))))
        return _framed(image.resize(size, Image.Resampling.BICUBIC), image.size, GREY)
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(strength * min(image.size) / 20))
    if kind == "noise":
        colours = np.asarray(image, np.float32)
        noise = 64 * strength * np.random.default_rng(seed).standard_normal(colours.shape, np.float32)
        return Image.fromarray((colours + noise).round().clip(0, 255).astype(np.uint8))
    if kind == "rotate":
        return image.rotate(45 * strength, Image.Resampling.BILINEAR, fillcolor=edge_colour(image))
    if kind == "flip":
        return ImageOps.mirror(image)
    if kind == "grey":
        return ImageEnhance.Color(image).enhance(1 - strength)
    if kind == "jpeg":
        return _compressed(image, round(95 - 90 * strength))  # above 95 a file grows and no picture gets better
    if kind == "border":
        return _bordered(image, max(1, round(strength * min(image.size) / 5)))
    return ImageEnhance.Brightness(image).enhance(1 + strength if kind == "brighten" else 1 - 0.8 * strength)


def noise(side: int, seed: int) -> Image.Image:
    """A square RGB picture of nothing: every colour of every pixel is drawn by itself."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def edge_colour(image: Image.Image) -> tuple[int, int, int]:
    """The mean colour of the outermost pixels."""
    colours = np.asarray(image)
    edge = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    red, green, blue = (int(value) for value in edge.mean(0))
    return red, green, blue


def with_text(image: Image.Image, text: str, side: int, place: Literal["above", "below"]) -> Image.Image:
    """A white square with the picture in one part and a text in the other, which takes half of it at most.

    The square has `side` pixels and the letters are as large as fits. Where not even the smallest fit, the square is
    larger: whoever brings it to `side` then makes letters smaller than can be read. A square, because processors crop
    what is none.
    """
    letters = "".join(map(_drawable, text.translate(_TYPEWRITTEN)))
    scale, side = _fitting(letters, side)
    lines = _lines(letters, side, scale)
    band = Image.new("RGB", (side // scale, HIGH * len(lines)), "white")
    pen, font = ImageDraw.Draw(band), ImageFont.load_default_imagefont()
    for i, line in enumerate(lines):
        pen.text((MARGIN, HIGH * i), line, fill="black", font=font)
    band = band.resize((band.width * scale, band.height * scale), Image.Resampling.NEAREST)
    room = (side, side - band.height)
    face = _framed(ImageOps.contain(image, room, Image.Resampling.BICUBIC), room, (255, 255, 255))
    whole = Image.new("RGB", (side, side), "white")
    whole.paste(face, (0, 0 if place == "below" else band.height))
    whole.paste(band, (0, face.height if place == "below" else 0))
    return whole


def _drawable(letter: str) -> str:
    """The letter if the bitmap font has it, else without its accent, else a question mark."""
    bare = letter if ord(letter) < 256 else unicodedata.normalize("NFKD", letter)[0]
    return bare if ord(bare) < 256 else "?"


def _fitting(text: str, side: int) -> tuple[int, int]:
    """The largest scale of letters at which a text takes half of a square at most, and the side of that square."""
    for scale in range(max(1, side // (8 * WIDE)), 0, -1):
        if _fits(text, side, scale):
            return scale, side
    least = math.isqrt(2 * WIDE * HIGH * len(text))
    return 1, next(edge for edge in itertools.count(max(side, least)) if _fits(text, edge, 1))


def _fits(text: str, side: int, scale: int) -> bool:
    return 2 * HIGH * scale * len(_lines(text, side, scale)) <= side


def _lines(text: str, side: int, scale: int) -> list[str]:
    return textwrap.wrap(text, max(1, (side // scale - 2 * MARGIN) // WIDE))


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    """What is left of a picture in a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _bordered(image: Image.Image, width: int) -> Image.Image:
    inner = image.crop((width, width, image.width - width, image.height - width))
    return _framed(inner, image.size, (0, 0, 0))


def _middle(image: Image.Image, share: float) -> Image.Image:
    width, height = max(1, round(image.width * share)), max(1, round(image.height * share))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _framed(image: Image.Image, size: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    canvas = Image.new("RGB", size, colour)
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas
