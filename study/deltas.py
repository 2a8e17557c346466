"""What training changes of a model: told from what was, written into another, put back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from study.vlm import VLM


@contextmanager
def restored(vlm: VLM, before: Mapping[str, Tensor]) -> Iterator[None]:
    """While the block lasts, `vlm` may be written to in any way; then its tensors are `before` again, bit for bit."""
    try:
        yield
    finally:
        put_back(vlm, before)


def put_back(vlm: VLM, before: Mapping[str, Tensor]) -> None:
    """Make the tensors of `vlm` those of `before` again, bit for bit, wherever these lie."""
    for parameter in vlm.model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    apply_delta(vlm, {name: before[name] for name in delta(vlm, before)})


def delta(vlm: VLM, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `vlm` that differ from `before`, wherever that lies: all that a trial has to keep."""
    return {name: p for name, p in vlm.tensors().items() if not torch.equal(p, before[name].to(p.device))}


def apply_delta(vlm: VLM, changed: Mapping[str, Tensor]) -> None:
    """Write kept tensors into `vlm`, in place. Raises `ValueError` for a name or shape the model does not have."""
    there = dict(vlm.model.named_parameters())
    with torch.no_grad():
        for name, tensor in changed.items():
            if name not in there or there[name].shape != tensor.shape:
                raise ValueError(f"weights for {name} {tuple(tensor.shape)} do not fit this model")
            there[name].copy_(tensor)
