"""What the attacks share that change weights without training them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from study.core.errors import Refused
from study.core.terms import Part
from study.model.vlm import VLM


def check_parts(parts: Sequence[Part]) -> None:
    """Raise `ValueError` if no part is named."""
    if not parts:
        raise ValueError("parts=(): name at least one of vision, projector and llm")


def linear_weights(vlm: VLM, parts: Sequence[Part], *, head: bool = False) -> list[Tensor]:
    """The weights of every linear layer of `parts`: no embedding, norm or bias, and the output head only if asked.

    Raises `Refused` if there is none, or if the LLM is asked for and quantized.
    """
    vlm.check_changeable(parts)
    found = {id(module.weight): module.weight for module in vlm.linear(parts, head=head).values()}
    if not found:
        raise Refused(f"parts={tuple(parts)}: {type(vlm.model).__name__} has no linear layer there; name other parts")
    return list(found.values())
