"""Families of multimodal LLMs. A family is a file, called as `model_type` in config.json calls it; others need none.

Every family that has a file is tested: LLaVA-1.5, LLaVA-NeXT, Idefics2, Idefics3 (SmolVLM), SmolVLM2, Qwen2-VL,
Qwen2.5-VL, Gemma 3, PaliGemma, Mllama (Llama 3.2 Vision).
"""

from study.core.terms import PARTS, Part
from study.model.families._family import CUTS, Family, additive, family_of, inner, output_head, why_apart
from study.model.families._processors import expander, load_processor, special_tokens, unknown, without_package
from study.model.families._sides import patch_side, tower_side, vision_config
from study.model.families._towers import read_layers, skip_unread, unread

__all__ = [
    "CUTS",
    "PARTS",
    "Family",
    "Part",
    "additive",
    "expander",
    "family_of",
    "inner",
    "load_processor",
    "output_head",
    "patch_side",
    "read_layers",
    "skip_unread",
    "special_tokens",
    "tower_side",
    "unknown",
    "unread",
    "vision_config",
    "why_apart",
    "without_package",
]
