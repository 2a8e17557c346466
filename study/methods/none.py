"""No unlearning: the identity. Vanilla and the reference are scored with it: the baselines of a study."""

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
