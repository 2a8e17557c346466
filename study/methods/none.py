"""No unlearning: the identity. Applied to vanilla it is the start of every method, to the reference the yardstick."""

from __future__ import annotations

from dataclasses import dataclass

from study.contracts import Method, Request
from study.model.vlm import VLM


@dataclass(frozen=True)
class NoMethod(Method):
    """Leaves the model as it is; never searched and never ranked."""

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """The model."""
        return vlm
