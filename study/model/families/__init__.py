"""Families of multimodal LLMs. A family is a file, called as `model_type` in config.json calls it; others need none.

Every family that has a file is tested: LLaVA-1.5, LLaVA-NeXT, Idefics2, Idefics3 (SmolVLM), SmolVLM2, Qwen2-VL,
Qwen2.5-VL, Gemma 3.
"""

from study.core.terms import PARTS, Part
from study.model.families._family import Family, family_of
from study.model.families._processors import expander, load_processor, special_tokens
from study.model.families._towers import read_layers, skip_unread, unread

__all__ = [
    "PARTS",
    "Family",
    "Part",
    "expander",
    "family_of",
    "load_processor",
    "read_layers",
    "skip_unread",
    "special_tokens",
    "unread",
]
