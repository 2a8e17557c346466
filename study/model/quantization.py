"""Weights rounded to a codebook: the arithmetic, and linear layers that hold nothing but the codes.

A weight becomes the nearest value of the format's codebook in [-1, 1] times the largest absolute weight of its group:
k / 127 for int8, k / 7 for int4 (round to nearest, symmetric), the sixteen values of QLoRA for NF4. The attack
`quantization` rounds and puts ordinary numbers back; a base model that is loaded `quantized` keeps codes and scales and
makes numbers of a layer each time it runs. Pure torch and no calibration data.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from study.core.terms import Codes

Format = Literal["int8", "int4", "nf4"]

# QLoRA, arXiv 2305.14314, appendix E: quantiles of a normal distribution, scaled to [-1, 1], with an exact 0
NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)  # fmt: skip
NF4_BLOCK = 64


@functools.cache  # copied to a GPU for every layer, it would have the GPU wait
def codebook(format: Format, device: torch.device | None = None) -> Tensor:
    """The values of a format, in rising order, as shares of the largest weight of a group; never to be written to."""
    if format == "nf4":
        return torch.tensor(NF4, device="cpu").to(device)
    most = {"int8": 127, "int4": 7}[format]
    return (torch.arange(-most, most + 1, device="cpu") / most).to(device)  # a GPU may divide to another last bit


def encoded(weight: Tensor, format: Format, group_size: int = 0) -> tuple[Tensor, Tensor]:
    """A weight (out, in) as places in the codebook (R, G, group size), int32, and scales (R, G, 1), float32.

    `group_size` weights share a scale; 0 for the format's own: an output channel for the integers, 64 for NF4. Integers
    are grouped within a channel, NF4 along the flattened weight; the last group is filled up with zeros.
    """
    rows = weight.reshape(1, -1) if format == "nf4" else weight
    size = group_size or (NF4_BLOCK if format == "nf4" else rows.shape[1])
    groups = pad(rows.float(), (0, -rows.shape[1] % size)).reshape(len(rows), -1, size)
    largest = groups.abs().amax(-1, keepdim=True)
    values = codebook(format, weight.device)
    shares = groups / largest.where(largest > 0, torch.ones_like(largest))
    return torch.bucketize(shares, (values[1:] + values[:-1]) / 2, out_int32=True), largest


def decoded(places: Tensor, largest: Tensor, format: Format, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """The weight of that shape and type that `encoded` made these of, rounded."""
    values = codebook(format, places.device).index_select(0, places.flatten()).view(places.shape).mul_(largest)
    columns = shape.numel() // len(places)
    return values.reshape(len(places), -1)[:, :columns].reshape(shape).to(dtype)


def rounded(weight: Tensor, format: Format, group_size: int = 0) -> Tensor:
    """A weight (out, in) as the format holds it, in its own type; what is rounded already stays bit for bit."""
    return decoded(*encoded(weight, format, group_size), format, weight.shape, weight.dtype)


class QuantizedLinear(nn.Module):
    """A linear layer whose weight is stored as codes and scales. It is frozen: it has no weight to train.

    Gradients go through it to what it was given, and the weight is made anew for that: none is kept in between.
    """

    codes: Tensor
    """Places in the codebook, one a byte or, for NF4, two."""
    scales: Tensor

    def __init__(self, layer: nn.Linear, format: Codes) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.format, self.dtype = format, layer.weight.dtype
        places, scales = encoded(layer.weight.detach(), format)
        codes = places.to(torch.uint8)
        if format == "nf4":
            codes = codes[..., ::2] << 4 | codes[..., 1::2]
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.bias = layer.bias

    def held(self) -> Tensor:
        """The weight (out, in) that the codes stand for, in the type of the weight they were made of."""
        codes = self.codes
        if self.format == "nf4":
            codes = torch.stack([codes >> 4, codes & 15], -1).flatten(-2)
        shape = torch.Size((self.out_features, self.in_features))
        return decoded(codes.int(), self.scales, self.format, shape, self.dtype)

    def forward(self, given: Tensor) -> Tensor:
        """As that of `nn.Linear`, in the type of what it is given, or in autocast's."""
        kind = given.device.type
        if torch.is_autocast_enabled(kind):
            given = given.to(torch.get_autocast_dtype(kind))
        return cast(Tensor, _Product.apply(given, self))  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        """What it is, beside its name."""
        return f"{self.in_features}, {self.out_features}, {self.format}"


class _Product(torch.autograd.Function):
    """x W' + b, whose backward pass decodes W again instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(given.dtype)
        return linear(given, layer.held().to(given.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.held().to(gradient.dtype), None


def code_bytes(layer: nn.Linear, format: Codes) -> int:
    """The bytes of a layer's codes and scales, without computing them."""
    shapes = nn.Linear(layer.in_features, layer.out_features, device="meta")
    return sum(held.nbytes for held in QuantizedLinear(shapes, format).buffers())


@torch.no_grad()
def quantize(model: nn.Module, names: Iterable[str], format: Codes, device: str | torch.device) -> None:
    """Replace the linear layers of these names by quantized ones on `device`.

    One layer after another: no more than one weight is on the device unquantized at a time.
    """
    for name in names:
        layer = cast(nn.Linear, model.get_submodule(name))
        model.set_submodule(name, QuantizedLinear(layer.to(device), format))


def as_numbers(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a model by the name it has without quantization, to be written to a folder."""
    tensors: dict[str, Tensor] = dict(model.state_dict())
    for name, layer in model.named_modules():
        if isinstance(layer, QuantizedLinear):
            del tensors[f"{name}.codes"], tensors[f"{name}.scales"]
            tensors[f"{name}.weight"] = layer.held()
    return tensors
