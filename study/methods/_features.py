"""How far the visual features of one model are from another's: what the feature-matching methods share."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from study.model.vision import Features
from study.training import losses

Layers = Literal["all", "last_half", "last", "projector"]


def apart(student: Features, teacher: Features, layers: Layers, distance: losses.Distance) -> Tensor:
    """The mean distance over the vision layers in `layers`, plus that of the projector output; a scalar."""
    depth = len(student.layers)
    first = {"all": 0, "last_half": depth // 2, "last": depth - 1, "projector": depth}[layers]
    total = losses.feature_distance(student.projected, teacher.projected, distance)
    pairs = list(zip(student.layers[first:], teacher.layers[first:], strict=True))
    for ours, theirs in pairs:
        total = total + losses.feature_distance(ours, theirs, distance) / len(pairs)
    return total
