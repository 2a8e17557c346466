"""Retraining: the model that never saw what is to be forgotten, the reference of every method."""

from __future__ import annotations

from dataclasses import dataclass

from study.contracts import Method, Request
from study.core.terms import PARTS, Part
from study.model.delta import apply_delta
from study.model.vlm import VLM


@dataclass(frozen=True)
class Retrain(Method):
    """Puts the reference's weights into the model: perfect forgetting by an oracle, never searched, never ranked."""

    @property
    def oracle(self) -> bool:
        """It is nothing but the reference model, which no real request has."""
        return True

    @property
    def changes(self) -> tuple[Part, ...]:
        """All parts."""
        return PARTS

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """The reference, in place."""
        vlm.check_changeable(self.changes)
        apply_delta(vlm, request.reference().tensors())
        return vlm
