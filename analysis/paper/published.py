"""Numbers of papers, to stand beside those of a study of the same benchmark and forget ratio; each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Published(NamedTuple):
    """Percentages (ROUGE-L times 100) of one method, by (set, task, modality)."""

    method: str
    ratio: int
    model: str
    source: str
    values: Mapping[tuple[str, str, str], float]


def _eraser(method: str, *numbers: float) -> Published:
    """Classification, generation and cloze of the forget and the retain set, in turn."""
    places = [(role, task, "image_text") for task in ("classification", "generation", "cloze")
              for role in ("forget", "retain")]  # fmt: skip
    return Published(method, 5, "LLaVA-1.5-7B", "VL-Eraser (CVPR 2026)", dict(zip(places, numbers, strict=True)))


MLLMU = (
    _eraser("Vanilla", 51.2, 47.9, 57.0, 49.4, 27.1, 26.3), _eraser("GA", 39.4, 39.7, 39.2, 41.8, 21.2, 19.2),
    _eraser("NPO", 41.9, 42.1, 51.0, 41.5, 17.4, 21.8), _eraser("MMUnlearner", 32.6, 41.9, 46.2, 45.8, 22.4, 24.6),
)  # fmt: skip
