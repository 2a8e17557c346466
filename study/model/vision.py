"""Pictures as a model takes them, and what its visual module says of them, apart from the model that said it.

Pixels are named tensors with one entry per picture, whatever a family calls and shapes them. Shapes: B pictures,
N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from study.model.byte_cache import ByteCache

PIXEL_BYTES = 2**31
"""Of prepared pictures that a process keeps in main memory: at 1.35 MB each for LLaVA-1.5, 1,580 of them. Others are
decoded and prepared again, which takes milliseconds."""

FEATURE_BYTES = 2**30
"""Of features that a trial keeps, on the device of its model, of pictures that it sees again."""


@dataclass(frozen=True)
class Features:
    """The features of B pictures: one (B, N, D) tensor per vision layer, and the projected tokens."""

    layers: tuple[Tensor, ...]
    projected: Tensor

    def __getitem__(self, rows: Any) -> Features:
        return Features(tuple(layer[rows] for layer in self.layers), self.projected[rows])


def gathered(parts: Sequence[Features]) -> Features:
    """One batch made of several."""
    if len(parts) == 1:
        return parts[0]
    layers = tuple(torch.cat(tensors) for tensors in zip(*(part.layers for part in parts), strict=True))
    return Features(layers, torch.cat([part.projected for part in parts]))


@dataclass(frozen=True)
class Pixels:
    """B prepared pictures under the model's own input names: every tensor is (B, ...), on one device."""

    tensors: Mapping[str, Tensor]
    flat: frozenset[str] = frozenset()
    """The tensors of which the model takes the rows of all pictures in one, as Qwen's takes patches."""
    wide: frozenset[str] = frozenset()
    """The tensors of which the model takes those of all pictures side by side, as MiniCPM's takes patches."""
    counted: Mapping[str, int] = field(default_factory=dict)
    """The tensors that name patches by their number, as Molmo 2's do, each with the number of patches of a picture.

    Here every picture begins with 0, and the model counts through all that it is given; what is below 0 names none."""

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: slice | Sequence[int]) -> Pixels:
        """Some of the pictures, in the given order; a picture may appear twice."""
        return replace(self, tensors={name: tensor[rows] for name, tensor in self.tensors.items()})

    @property
    def nbytes(self) -> int:
        """Their size."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def apart(self) -> list[Pixels]:
        """Each picture by itself, in memory of its own: one can be freed without the others."""
        ones = ({name: t[i : i + 1].clone() for name, t in self.tensors.items()} for i in range(len(self)))
        return [replace(self, tensors=tensors) for tensors in ones]

    def to(self, device: torch.device | str) -> Pixels:
        """The same pictures on `device`."""
        return replace(self, tensors={name: tensor.to(device) for name, tensor in self.tensors.items()})

    def inputs(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The model's arguments: floating tensors in its precision, what is `flat` in one tensor for all pictures."""
        found = {name: t.to(dtype) if t.is_floating_point() else t for name, t in self.tensors.items()}
        found |= {name: _moved(found[name], patches) for name, patches in self.counted.items()}
        laid = {name: torch.cat([*t], -1)[None] for name, t in found.items() if name in self.wide}
        return {name: t.flatten(0, 1) if name in self.flat else t for name, t in found.items()} | laid


def pixel_cache() -> ByteCache[Pixels]:
    """An empty cache of single pictures."""
    return ByteCache(PIXEL_BYTES, lambda pixels: pixels.nbytes)


def pixels_from(
    made: Mapping[str, Tensor],
    count: int,
    names: Collection[str],
    wide: frozenset[str] = frozenset(),
    counted: Mapping[str, int] = MappingProxyType({}),
) -> Pixels:
    """What an image processor made of `count` pictures of one size, kept as far as the model has an input of that name.

    Qwen's processors lay the patches of all pictures in one long row, (B P, D): here they are (B, P, D). Those that lie
    side by side, (1, ..., B P), are (B, ..., P).
    """
    kept = {name: tensor for name, tensor in made.items() if name in names and isinstance(tensor, Tensor)}
    kept |= {name: torch.cat(tensor.chunk(count, -1)) for name, tensor in kept.items() if name in wide}
    flat = frozenset(name for name, tensor in kept.items() if len(tensor) != count)
    tensors = {name: t.unflatten(0, (count, -1)) if name in flat else t for name, t in kept.items()}
    numbered = {name: patches for name, patches in counted.items() if name in kept}
    tensors |= {name: _moved(tensors[name], -patches) for name, patches in numbered.items()}
    return Pixels(tensors, flat, wide & set(kept), numbered)


def patches_counted(tensor: Any) -> int:
    """How much larger a tensor of two equal pictures is for the second, if it is of whole numbers and all that are not
    below 0 are larger by as much; else 0."""
    if not isinstance(tensor, Tensor) or tensor.is_floating_point() or tensor.ndim == 0 or len(tensor) % 2:
        return 0
    first, second = tensor.long().chunk(2)
    steps = (second - first)[first >= 0].unique().tolist()
    return int(steps[0]) if len(steps) == 1 and torch.equal(first < 0, second < 0) else 0


def _moved(numbers: Tensor, by: int) -> Tensor:
    """The numbers (B, ...) of patches, those of every picture moved `by` more than those of the one before."""
    steps = by * torch.arange(len(numbers), device=numbers.device, dtype=numbers.dtype)
    return torch.where(numbers < 0, numbers, numbers + steps.reshape(-1, *[1] * (numbers.ndim - 1)))


def joined(parts: Sequence[Pixels]) -> Pixels:
    """All pictures of `parts`, of which there is at least one, in order."""
    every = {name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors}
    return replace(parts[0], tensors=every)


def squared(image: Image.Image, side: int, colour: tuple[int, int, int]) -> Image.Image:
    """An RGB picture in the middle of a square of `colour` (expand2square of LLaVA), `side` pixels wide and high."""
    width, height = image.size
    if width != height:
        edge = max(width, height)
        canvas = Image.new("RGB", (edge, edge), colour)
        canvas.paste(image, ((edge - width) // 2, (edge - height) // 2))
        image = canvas
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)
