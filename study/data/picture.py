"""An encoded picture as it is in a dataset."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from study.core.errors import Damaged
from study.core.files import POINTER

MAX_PIXELS = 50_000_000
"""150 MB once decoded as RGB: above the pictures of ordinary cameras, and no decompression bomb."""
DEEP = 65_535
"""White in grey of 16 bits."""
FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True)
class Picture:
    """An encoded picture as it is in a dataset: its bytes, and where they come from (for error messages)."""

    data: bytes = field(repr=False)
    where: str = field(compare=False)
    as_stored: bool = False
    """Whether it is opened as Pillow alone does, which many evaluation codes use: not turned upright, nor scaled."""
    turned: bool = False
    """With `as_stored`, whether it is turned upright all the same, as the library datasets turns what it decodes."""

    @cached_property
    def key(self) -> str:
        """The key of its content: equal pictures are encoded once."""
        return hashlib.sha256(self.data).hexdigest()[:16] + "-as-stored" * self.as_stored + "-turned" * self.turned

    def check(self) -> None:
        """Raise `ValueError` if the header asks for too many pixels, `Damaged` if it opens as no PNG, JPEG or WEBP."""
        self._header().close()

    def open(self) -> Image.Image:
        """The upright RGB picture: deep grey scaled, what is transparent on white, as a viewer shows it.

        Raises `ValueError` that names the place if it does not decode.
        """
        with self._header() as image:
            try:
                if self.as_stored:
                    return (ImageOps.exif_transpose(image) if self.turned else image).convert("RGB")
                return _in_rgb(ImageOps.exif_transpose(image))
            except (OSError, SyntaxError, ValueError) as error:
                raise Damaged(f"{self.where}: the image is damaged ({error}); replace or remove it") from error

    def _header(self) -> Image.Image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is stricter
                image = Image.open(io.BytesIO(self.data), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise ValueError(f"{self.where}: {error}; at most {MAX_PIXELS:,} pixels are read") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise Damaged(
                f"{self.where}: not an image in one of {', '.join(FORMATS)}; {self._instead(error)}, or remove it"
            ) from error
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"{self.where}: the image has {width} x {height} = {width * height:,} pixels; "
                f"at most {MAX_PIXELS:,} are read, so scale it down"
            )
        return image

    def _instead(self, error: Exception) -> str:
        """What is there instead of a picture that can be read, and what to do about it."""
        if not isinstance(error, UnidentifiedImageError):
            return f"{error}: replace or convert it"
        if self.data.startswith(POINTER):
            return "it is the pointer of git-lfs: run `git lfs pull` there"
        return f"it begins with {self.data[:12]!r}: convert it" if self.data else "it is empty: replace it"


def _in_rgb(image: Image.Image) -> Image.Image:
    """Pillow alone clips grey of 16 bits, to white, and shows the colour that transparency hides."""
    if image.mode.startswith("I"):
        grey = Image.fromarray(np.round(np.asarray(image, np.float64) / DEEP * 255).astype(np.uint8))
        return grey.convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    shown = image.convert("RGBA")
    if shown.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGBA", shown.size, "white")
    return Image.alpha_composite(white, shown).convert("RGB")
