"""Tiny random models of families without a file, made of the true classes: what the general family is tried on.

Most image processors have a form without torchvision; the others, and timm's towers, need the extra `vision`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.utils.import_utils import is_timm_available, is_torchvision_available

from tests.helpers.families import mllama, save_folder
from tests.helpers.newcomers import any_shape, gemma, one_projector, qwen, unlike
from tests.helpers.newcomers.making import Made, hf

_MAKERS: dict[str, Callable[[], Made]] = {
    "qwen3_vl": lambda: qwen.qwen("Qwen3VL"),
    "qwen3_vl_moe": lambda: qwen.qwen("Qwen3VLMoe"),
    "qwen3_5": lambda: qwen.qwen("Qwen3_5"),
    "qwen3_5_moe": lambda: qwen.qwen("Qwen3_5Moe"),
    "internvl": one_projector.internvl,
    "llava_onevision": one_projector.llava_onevision,
    "paligemma2": one_projector.paligemma2,
    "gemma4": gemma.gemma4,
    "gemma3n": gemma.gemma3n,
    "pixtral": lambda: any_shape.pixtral("Llava", hf.LlavaConfig, 1, vision_feature_select_strategy="full"),
    "mistral3": lambda: any_shape.pixtral(
        "Mistral3", hf.Mistral3Config, 2, spatial_merge_size=2, tie_word_embeddings=False
    ),
    "llama4": unlike.llama4,
    "mllama": mllama,
    "glm4v": lambda: any_shape.glm("Glm4v"),
    "glm46v": lambda: any_shape.glm("Glm46V"),
    "glm4v_moe": lambda: any_shape.glm("Glm4vMoe"),
    "cohere2_vision": one_projector.cohere2_vision,
    "fast_vlm": unlike.fast_vlm,
    "lfm2_vl": any_shape.lfm2_vl,
    "florence2": unlike.florence2,
    "deepseek_vl": one_projector.deepseek_vl,
    "vipllava": one_projector.vipllava,
    "aria": one_projector.aria,
    "got_ocr2": one_projector.got_ocr2,
    "blip2": one_projector.blip2,
    "molmo2": unlike.molmo2,
    "kimi_k25": any_shape.kimi_k25,
    "granite4_vision": one_projector.granite4_vision,
    "qwen2_5_omni_thinker": lambda: qwen.qwen_omni("Qwen2_5Omni"),
    "qwen3_omni_moe_thinker": lambda: qwen.qwen_omni("Qwen3OmniMoe"),
    "qwen4_exp": lambda: qwen.qwen("Qwen4Exp"),
    "exaone4_5": qwen.exaone4_5,
    "glm_ocr": lambda: any_shape.glm("GlmOcr"),
    "glm5_next": any_shape.glm5_next,
    "minimax_m3_vl": any_shape.minimax_m3_vl,
    "inkling2": any_shape.inkling2,
    "perception_lm": any_shape.perception_lm,
    "hyperclovax_vision_v2": one_projector.hyperclovax,
    "video_llama_3": qwen.video_llama_3,
    "paddleocr_vl": qwen.paddleocr_vl,
    "granite_docling": one_projector.granite_docling,
    "lighton_ocr": any_shape.lighton_ocr,
    "qianfan_ocr": one_projector.qianfan_ocr,
    "janus": one_projector.janus,
    "shieldgemma2": gemma.shieldgemma2,
    "instructblip": unlike.instructblip,
    "chameleon": unlike.chameleon,
    "emu3": unlike.emu3,
    "aya_vision": one_projector.aya_vision,
    "llava_next_video": one_projector.llava_next_video,
    "ovis2": one_projector.ovis2,
    "deepseek_vl_hybrid": one_projector.deepseek_vl_hybrid,
    "video_llava": one_projector.video_llava,
    "ernie4_5_vl_moe": any_shape.ernie4_5_vl_moe,
    "hunyuan_vl": any_shape.hunyuan_vl,
    "minicpmv4_6": lambda: any_shape.minicpm("MiniCPMV4_6"),
    "minicpmv4_7": lambda: any_shape.minicpm("MiniCPMV4_7"),
    "lfm3_vl": any_shape.lfm3_vl,
    "cohere_compass": any_shape.cohere_compass,
    "mistral_large4": any_shape.mistral_large4,
    "muse_glimmer": lambda: any_shape.muse("MuseGlimmer"),
    "muse_spark": lambda: any_shape.muse("MuseSpark"),
    "step3p7": any_shape.step3p7,
    "nemotron_h_omni": any_shape.nemotron_h_omni,
}
NEWCOMERS = tuple(_MAKERS)
NEEDS: dict[str, tuple[str, ...]] = {
    "torchvision": (
        "pixtral", "mistral3", "llama4", "cohere2_vision", "lfm2_vl", "molmo2", "kimi_k25", "minimax_m3_vl", "inkling2",
        "perception_lm", "mistral_large4", "muse_glimmer", "muse_spark", "step3p7", "nemotron_h_omni",
    ),
    "timm": ("gemma3n", "fast_vlm", "perception_lm"),
}  # fmt: skip


def needs(name: str) -> str:
    """The packages beside the usual ones that a family needs; empty if none."""
    return " and ".join(package for package, names in NEEDS.items() if name in names)


def can_be_made(name: str) -> bool:
    """Whether what this family needs is installed."""
    there = {"torchvision": is_torchvision_available, "timm": is_timm_available}
    return all(there[package]() for package, names in NEEDS.items() if name in names)


def newcomer_folder(name: str, folder: Path) -> Path:
    """A tiny random model, saved under `folder` as its publisher does: with the settings of a video processor too."""
    torch.manual_seed(0)
    model, its = _MAKERS[name]()
    made = save_folder(folder / name, model, its, kept="timm_model")
    stock: Any = type(its).__bases__[0]
    if hasattr(stock, "get_attributes") and "video_processor" in stock.get_attributes():
        path = made / "processor_config.json"
        settings = json.loads(path.read_text())
        kind = type(its).__name__.removesuffix("Processor")
        path.write_text(json.dumps(settings | {"video_processor": {"video_processor_type": f"{kind}VideoProcessor"}}))
    return made
