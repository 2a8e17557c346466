"""Tiny random models of families without a file, made of the true classes: what the general family is tried on.

Most image processors have a form without torchvision; the others, and timm's towers, need the extra `vision`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils.import_utils import is_timm_available, is_torchvision_available

from study.model.families._images_and_text import images_and_text
from tests.helpers.families import SIZES, TURN, save_folder, text_sizes, tokenizer_of

hf: Any = transformers  # its classes are many, and typed as their configurations are, not as they are called
Made = tuple[Any, Any]
"""A model and its processor."""
GRID = [[56, 112], [112, 56], [112, 112]]
SIDE = {"height": 56, "width": 56}
AREAS = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}


def given(**values: Any) -> dict[str, Any]:
    return values


TOWER = given(**SIZES, image_size=56, patch_size=14)
MROPE = given(rope_type="default", rope_theta=10_000.0, mrope_section=[1, 1, 2])
CHATML = given(user="<|im_start|>user\n", end="<|im_end|>\n", reply="<|im_start|>assistant\n")


def chatml(image: str) -> str:
    return TURN.format(image=image, **CHATML)


def spoken(
    special: list[str], end: str = "<|im_end|>", *, named: dict[str, str] | None = None, bos: bool = False
) -> Any:
    """A tokenizer whose special tokens are single ones, those that `named` calls by an attribute included."""
    tokenizer = tokenizer_of(["<|im_start|>", *special], end, bos=bos, named=named)
    if named:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *special]}, False)
    return tokenizer


def ids(tokenizer: Any, **names: str) -> dict[str, Any]:
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def pictures(kind: str, **settings: Any) -> Any:
    """The image processor of a kind, without torchvision where it has such a form."""
    pil = getattr(hf, f"{kind}ImageProcessorPil", None)
    return (pil or getattr(hf, f"{kind}ImageProcessor"))(**settings)


def processor(kind: str, *parts: Any, **settings: Any) -> Any:
    """The stock processor, without videos and audio; `_add_video` writes down what a published folder has."""
    stock = getattr(hf, f"{kind}Processor")
    names = [name for name in stock.get_attributes() if "image" in name or "tokenizer" in name]
    absent = dict.fromkeys(set(stock.get_attributes()) - set(names))
    return images_and_text(stock)(**dict(zip(names, parts, strict=True)), **absent, **settings)


# ---- Qwen --------------------------------------------------------------------------------------------------------
def _qwen(kind: str) -> Made:
    tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = spoken(tokens)
    names = given(image_token_id="<|image_pad|>", video_token_id="<|video_pad|>")
    names |= given(vision_start_token_id="<|vision_start|>", vision_end_token_id="<|vision_end|>")
    vision = given(depth=3, hidden_size=32, intermediate_size=64, num_heads=4, patch_size=14, temporal_patch_size=2)
    vision |= given(spatial_merge_size=2, out_hidden_size=32, num_position_embeddings=16)
    text = text_sizes(tokenizer, head_dim=8, rope_parameters=MROPE)
    if kind.startswith("Qwen3VL"):
        vision["deepstack_visual_indexes"] = [0, 1]
    if kind.startswith(("Qwen3_5", "Qwen4")):
        text |= given(num_hidden_layers=4, layer_types=["linear_attention"] * 3 + ["full_attention"])
        text |= given(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4)
        text |= given(linear_conv_kernel_dim=4, rope_parameters=MROPE | given(partial_rotary_factor=1.0))
    if kind.lower().endswith("moe") or kind == "Qwen4Exp":
        text |= given(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
        text |= given(shared_expert_intermediate_size=16) if not kind.startswith("Qwen3VL") else {}
    if kind == "Qwen4Exp":
        text |= given(hc_count=2, hc_lowrank=8, ple_layer_ids=[1], ple_embed_dim=32, heads_per_ngram=2)
        text |= given(ngram_vocab_size_base=50, make_ngram_vocab_size_divisible_by=8, split_ngram_parts=2)
        text |= given(indexer_n_heads=2, indexer_kv_heads=1, indexer_head_dim=8, indexer_budget=8)
        text |= given(indexer_compress_ratio=4)
    config = getattr(hf, f"{kind}Config")(text_config=text, vision_config=vision, **ids(tokenizer, **names))
    image = pictures("Qwen2VL", patch_size=14, merge_size=2, size=AREAS)
    template = chatml("<|vision_start|><|image_pad|><|vision_end|>")
    made = processor("Qwen3VL", image, tokenizer, chat_template=template)
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), made


def _qwen_omni(kind: str) -> Made:
    """The part that sees and speaks of a model that also hears: saved by itself, as the larger one is no such class."""
    named = given(image_token="<|IMAGE|>", video_token="<|VIDEO|>", audio_token="<|AUDIO|>")
    named |= given(vision_bos_token="<|vision_bos|>", vision_eos_token="<|vision_eos|>")
    named |= given(audio_bos_token="<|audio_bos|>", audio_eos_token="<|audio_eos|>")
    tokenizer = spoken(list(named.values()), named=named)
    vision = given(depth=3, hidden_size=32, intermediate_size=64, num_heads=4, patch_size=14, temporal_patch_size=2)
    vision |= given(spatial_merge_size=2, out_hidden_size=32)
    audio = given(d_model=32, encoder_layers=1, encoder_attention_heads=4, encoder_ffn_dim=64, output_dim=32)
    text = text_sizes(tokenizer, rope_parameters=MROPE)
    if kind == "Qwen3OmniMoe":
        vision |= given(num_position_embeddings=16, deepstack_visual_indexes=[0, 1])
        audio |= given(downsample_hidden_size=8)
        text |= given(head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    else:
        vision |= given(window_size=28, fullatt_block_indexes=[1])
    tokens = {name.removesuffix("_token"): token for name, token in named.items()}
    names = {f"{name}_token_{'id' if kind == 'Qwen3OmniMoe' else 'index'}": tokens[name] for name in ("image", "video")}
    names |= {f"audio_token_{'id' if kind == 'Qwen3OmniMoe' else 'index'}": tokens["audio"]}
    names |= {f"{what}_start_token_id": tokens[f"{what}_bos"] for what in ("audio", "vision")}
    names |= {f"{what}_end_token_id": tokens[f"{what}_eos"] for what in ("audio", "vision")}
    config = getattr(hf, f"{kind}ThinkerConfig")(
        text_config=text, vision_config=vision, audio_config=audio, **ids(tokenizer, **names)
    )
    areas = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    image = pictures("Qwen2VL", patch_size=14, merge_size=2, size=areas)
    made = processor(kind, image, tokenizer, chat_template=chatml("<|vision_bos|><|IMAGE|><|vision_eos|>"))
    return getattr(hf, f"{kind}ThinkerForConditionalGeneration")(config), made


def _exaone4_5() -> Made:
    tokenizer = spoken(["<vision>", "</vision>", "<|image_pad|>", "<|video_pad|>", "[|user|]", "[|assistant|]"])
    vision = given(depth=2, hidden_size=32, intermediate_size=64, num_heads=4, patch_size=14, num_key_value_heads=2)
    config = hf.Exaone4_5_Config(
        text_config=hf.Exaone4Config(**text_sizes(tokenizer, sliding_window=12, sliding_window_pattern=2)),
        vision_config=vision | given(window_size=28, fullatt_block_indexes=[1], out_hidden_size=32),
        **ids(tokenizer, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>"),
    )
    image = pictures("Qwen2VL", patch_size=14, merge_size=2, size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56})
    turn = given(user="[|user|]", image="<vision><|image_pad|></vision>", end="<|im_end|>\n", reply="[|assistant|]\n")
    made = processor("Exaone4_5_", image, tokenizer, chat_template=TURN.format(**turn))
    return hf.Exaone4_5_ForConditionalGeneration(config), made


def _paddleocr_vl() -> Made:
    named = given(image_token="<|IMAGE_PLACEHOLDER|>")
    tokenizer = spoken([*named.values(), "<|IMAGE_START|>", "<|IMAGE_END|>", "<|video|>"], "</s>", named=named)
    names = given(image_token_id="<|IMAGE_PLACEHOLDER|>", vision_start_token_id="<|IMAGE_START|>")
    names |= given(vision_end_token_id="<|IMAGE_END|>", video_token_id="<|video|>")
    config = hf.PaddleOCRVLConfig(
        text_config=text_sizes(tokenizer, head_dim=8, rope_parameters=MROPE),
        vision_config=TOWER | given(spatial_merge_size=2),
        **ids(tokenizer, **names),
    )
    image = pictures("PaddleOCRVL", patch_size=14, size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56})
    turn = given(user="<s>User: ", image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>", end="\n")
    made = processor("PaddleOCRVL", image, tokenizer, chat_template=TURN.format(**turn, reply="Assistant:\n"))
    return hf.PaddleOCRVLForConditionalGeneration(config), made


def _video_llama_3() -> Made:
    tokenizer = spoken(["<|image_pad|>", "<|video_pad|>"])
    config = hf.VideoLlama3Config(
        text_config=hf.Qwen2Config(**text_sizes(tokenizer)),
        vision_config=given(**SIZES, patch_size=14),
        **ids(tokenizer, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>"),
    )
    areas = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    image = pictures("VideoLlama3", patch_size=14, merge_size=2, size=areas)
    made = processor("VideoLlama3", image, tokenizer, chat_template=chatml("<|image_pad|>\n"))
    return hf.VideoLlama3ForConditionalGeneration(config), made


# ---- one projector behind one tower ------------------------------------------------------------------------------
def _internvl() -> Made:
    named = given(start_image_token="<img>", end_image_token="</img>")
    named |= given(context_image_token="<IMG_CONTEXT>", video_token="<video>")
    tokenizer = spoken(list(named.values()), named=named)
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**SIZES, image_size=[56, 56], patch_size=[14, 14]),
        text_config=hf.Qwen2Config(**text_sizes(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    image = pictures("GotOcr2", size=SIDE, crop_to_patches=True, min_patches=1, max_patches=12)
    made = processor("InternVL", image, tokenizer, image_seq_length=4, chat_template=chatml("<IMG_CONTEXT>\n"))
    return hf.InternVLForConditionalGeneration(config), made


def _llava_onevision() -> Made:
    tokenizer = spoken(["<image>", "<video>"])
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**TOWER, vision_use_head=False),
        text_config=hf.Qwen2Config(**text_sizes(tokenizer)),
        image_grid_pinpoints=GRID,
        **ids(tokenizer, image_token_index="<image>", video_token_index="<video>"),
    )
    image = pictures("LlavaOnevision", size=SIDE, image_grid_pinpoints=GRID)
    settings = given(num_image_tokens=16, vision_feature_select_strategy="full", chat_template=chatml("<image>\n"))
    return hf.LlavaOnevisionForConditionalGeneration(config), processor("LlavaOnevision", image, tokenizer, **settings)


def _llava_next_video() -> Made:
    tokenizer = spoken(["<image>", "<video>"], "</s>", bos=True)
    config = hf.LlavaNextVideoConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER, projection_dim=32),
        text_config=hf.LlamaConfig(**text_sizes(tokenizer)),
        image_grid_pinpoints=GRID,
        **ids(tokenizer, image_token_index="<image>", video_token_index="<video>"),
    )
    image = pictures("LlavaNext", size={"shortest_edge": 56}, crop_size=SIDE, image_grid_pinpoints=GRID)
    settings = given(patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1)
    settings |= given(chat_template=TURN.format(user="USER: ", image="<image>\n", end="\n", reply="ASSISTANT:"))
    return hf.LlavaNextVideoForConditionalGeneration(config), processor("LlavaNextVideo", image, tokenizer, **settings)


def _ovis2() -> Made:
    tokens = ["<image>", "<IMG_ATOM>", *(f"<IMG_{what}>" for what in ("START", "GRID", "COL", "ROW", "END"))]
    tokenizer = spoken(tokens)
    config = hf.Ovis2Config(
        vision_config=hf.Ovis2VisionConfig(**TOWER, vocab_size=48, hidden_stride=2),
        text_config=hf.Qwen2Config(**text_sizes(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=tokenizer.convert_tokens_to_ids(tokens[2:]),
        vocab_size=len(tokenizer),
        hidden_size=32,
    )
    image = pictures("Ovis2", size=SIDE, crop_to_patches=True)
    made = processor("Ovis2", image, tokenizer, image_seq_length=4, chat_template=chatml("<image>\n"))
    return hf.Ovis2ForConditionalGeneration(config), made


def _paligemma2() -> Made:
    """PaliGemma with layers that see a window, without sdpa attention; its folder as published has no chat template."""
    tokenizer = tokenizer_of(["<image>"], "<eos>", bos=False, named={"image_token": "<image>"})
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**TOWER, vision_use_head=False),
        text_config=hf.Gemma2Config(**text_sizes(tokenizer, head_dim=8)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    image = pictures("Siglip", size=SIDE)
    image.image_seq_length = 16
    return hf.PaliGemmaForConditionalGeneration(config), processor("PaliGemma", image, tokenizer)


def _cohere2_vision() -> Made:
    named = given(boi_token="<|START_OF_IMG|>", eoi_token="<|END_OF_IMG|>", image_token="<|IMG_PATCH|>")
    named |= given(img_line_break_token="<|IMG_LINE_BREAK|>")
    tokenizer = spoken(list(named.values()), named=named)
    windows = given(head_dim=8, sliding_window=12, layer_types=["sliding_attention", "full_attention"])
    config = hf.Cohere2VisionConfig(
        vision_config=hf.SiglipVisionConfig(**TOWER, vision_use_head=False),
        text_config=hf.Cohere2Config(**text_sizes(tokenizer, **windows)),
        downsample_factor=2,
        alignment_intermediate_size=64,
        image_token_id=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )
    image = pictures("Cohere2Vision", size=SIDE, max_patches=12, patch_size=2, downsample_factor=2)
    made = processor("Cohere2Vision", image, tokenizer, chat_template=chatml("<|IMG_PATCH|>"))
    return hf.Cohere2VisionForConditionalGeneration(config), made


def _aya_vision() -> Made:
    tokens = ["<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "TILE", "TILE_GLOBAL"]
    tokenizer = spoken(tokens, "<|END_OF_TURN_TOKEN|>", bos=True)
    windows = given(head_dim=8, sliding_window=12, layer_types=["sliding_attention", "full_attention"])
    config = hf.AyaVisionConfig(
        vision_config=hf.SiglipVisionConfig(**TOWER, vision_use_head=False),
        text_config=hf.Cohere2Config(**text_sizes(tokenizer, **windows)),
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )
    image = pictures("GotOcr2", size=SIDE, crop_to_patches=True, min_patches=1, max_patches=12)
    settings = given(patch_size=14, downsample_factor=2, img_size=56, chat_template=chatml("<image>"))
    return hf.AyaVisionForConditionalGeneration(config), processor("AyaVision", image, tokenizer, **settings)


def _video_llava() -> Made:
    tokenizer = spoken(["<image>", "<video>"], "</s>", bos=True)
    config = hf.VideoLlavaConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER, projection_dim=32),
        text_config=hf.LlamaConfig(**text_sizes(tokenizer)),
        **ids(tokenizer, image_token_index="<image>", video_token_index="<video>"),
    )
    image = pictures("VideoLlava", size={"shortest_edge": 56}, crop_size=SIDE)
    template = TURN.format(user="USER: ", image="<image>\n", end="\n", reply="ASSISTANT:")
    return hf.VideoLlavaForConditionalGeneration(config), processor(
        "VideoLlava", image, tokenizer, chat_template=template
    )


def _deepseek_vl() -> Made:
    tokenizer = spoken(["<image_placeholder>"], "<eos>", named={"image_token": "<image_placeholder>"})
    config = hf.DeepseekVLConfig(
        text_config=hf.LlamaConfig(**text_sizes(tokenizer)),
        vision_config=hf.SiglipVisionConfig(**TOWER),
        image_token_id=tokenizer.convert_tokens_to_ids("<image_placeholder>"),
    )
    template = chatml("<image_placeholder>")
    made = processor(
        "DeepseekVL", pictures("DeepseekVL", size=SIDE), tokenizer, num_image_tokens=16, chat_template=template
    )
    return hf.DeepseekVLForConditionalGeneration(config), made


def _janus() -> Made:
    """It draws too, by modules that no picture passes."""
    named = given(image_token="<image_placeholder>", boi_token="<begin_of_image>", eoi_token="<end_of_image>")
    tokenizer = spoken(list(named.values()), "</s>", named=named)
    vq = given(embed_dim=4, num_embeddings=8, latent_channels=32, base_channels=32, channel_multiplier=[1, 1])
    config = hf.JanusConfig(
        text_config=hf.LlamaConfig(**text_sizes(tokenizer)),
        vision_config=TOWER | given(mlp_ratio=2.0, projection_dim=32, depth=2, num_image_tokens=16),
        vq_config=vq | given(num_res_blocks=1, num_patches=4, projection_dim=32, image_token_embed_dim=32),
        image_token_id=tokenizer.convert_tokens_to_ids("<image_placeholder>"),
    )
    template = TURN.format(user="<|User|>: ", image="<image_placeholder>\n", end="\n", reply="<|Assistant|>:")
    made = processor("Janus", pictures("Janus", size=SIDE), tokenizer, num_image_tokens=16, chat_template=template)
    return hf.JanusForConditionalGeneration(config), made


def _deepseek_vl_hybrid() -> Made:
    tokenizer = spoken(["<image_placeholder>"], "<eos>", named={"image_token": "<image_placeholder>"})
    sam = given(hidden_size=32, output_channels=16, num_hidden_layers=2, num_attention_heads=4, image_size=128)
    config = hf.DeepseekVLHybridConfig(
        text_config=hf.LlamaConfig(**text_sizes(tokenizer)),
        vision_config=hf.SiglipVisionConfig(**TOWER),
        high_res_vision_config=hf.SamVisionConfig(
            **sam, patch_size=16, window_size=4, global_attn_indexes=[1], mlp_dim=64
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image_placeholder>"),
    )
    image = pictures("DeepseekVLHybrid", size=SIDE, high_res_size={"height": 128, "width": 128})
    made = processor(
        "DeepseekVLHybrid", image, tokenizer, num_image_tokens=16, chat_template=chatml("<image_placeholder>")
    )
    return hf.DeepseekVLHybridForConditionalGeneration(config), made


def _vipllava() -> Made:
    tokenizer = spoken(["<image>"], "</s>", bos=True)
    config = hf.VipLlavaConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER | given(num_hidden_layers=4, projection_dim=32)),
        text_config=hf.LlamaConfig(**text_sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=[-2, -3, 1],
    )
    image = pictures("CLIP", size={"shortest_edge": 56}, crop_size=SIDE)
    settings = given(patch_size=14, num_additional_image_tokens=1, vision_feature_select_strategy="default")
    made = processor("Llava", image, tokenizer, **settings, chat_template=chatml("<image>\n"))
    return hf.VipLlavaForConditionalGeneration(config), made


def _granite_docling() -> Made:
    """It looks closer at a crowded page if asked to, by a second projector."""
    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>", "<end_of_utterance>"]
    tokenizer = spoken(special, "<end_of_utterance>")
    config = hf.GraniteDoclingConfig(
        vision_config=TOWER
        | given(num_hidden_layers=3, out_hidden_size=32, scale_factor=2, deepstack_visual_indexes=[0, 1]),
        text_config=text_sizes(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    turn = given(user="<|im_start|>User:", image="<image>", end="<end_of_utterance>\n", reply="Assistant:")
    image = pictures("GraniteDocling", size=SIDE)
    made = processor("GraniteDocling", image, tokenizer, image_seq_len=4, chat_template=TURN.format(**turn))
    return hf.GraniteDoclingForConditionalGeneration(config), made


def _hyperclovax() -> Made:
    tokenizer = spoken(["<|image_pad|>", "<|video_pad|>", "<|image_start|>", "<|image_end|>"])
    vision = given(depth=2, hidden_size=32, intermediate_size=64, num_heads=4, patch_size=14, out_hidden_size=32)
    config = hf.HyperCLOVAXVisionV2Config(
        vision_config=hf.Qwen2_5_VLConfig(
            vision_config=vision | given(window_size=28, fullatt_block_indexes=[1])
        ).vision_config,
        text_config=hf.HyperCLOVAXConfig(**text_sizes(tokenizer)),
        **ids(tokenizer, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>"),
    )
    image = pictures("Qwen2VL", patch_size=14, merge_size=2, size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56})
    template = chatml("<|image_start|><|image_pad|><|image_end|>")
    made = processor("HyperCLOVAXVisionV2", image, tokenizer, chat_template=template)
    return hf.HyperCLOVAXVisionV2ForConditionalGeneration(config), made


def _qianfan_ocr() -> Made:
    named = given(start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>")
    tokenizer = spoken([*named.values(), "<video>"], named=named | given(video_token="<video>"))
    config = hf.QianfanOCRConfig(
        vision_config=given(**SIZES, image_size=[56, 56], patch_size=[14, 14]),
        text_config=hf.Qwen3Config(**text_sizes(tokenizer, head_dim=8)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    image = pictures("GotOcr2", size=SIDE, crop_to_patches=True, min_patches=1, max_patches=12)
    made = processor("QianfanOCR", image, tokenizer, image_seq_length=4, chat_template=chatml("<image>\n"))
    return hf.QianfanOCRForConditionalGeneration(config), made


def _aria() -> Made:
    tokenizer = spoken(["<fim_prefix>", "<fim_suffix>", "<|img|>"], named={"image_token": "<|img|>"})
    experts = given(moe_num_experts=2, moe_topk=1, moe_num_shared_experts=1)
    config = hf.AriaConfig(
        vision_config=hf.Idefics3VisionConfig(**TOWER | given(image_size=980)),
        text_config=hf.AriaTextConfig(**text_sizes(tokenizer, **experts)),
        image_token_index=tokenizer.convert_tokens_to_ids("<|img|>"),
        projector_patch_to_query_dict={4900: 4},  # its processor makes pictures of 980 pixels
    )
    image = pictures("Aria", max_image_size=490)
    made = processor("Aria", image, tokenizer, chat_template=chatml("<|img|>"), size_conversion={490: 4, 980: 4})
    return hf.AriaForConditionalGeneration(config), made


def _got_ocr2() -> Made:
    named = given(image_token="<imgpad>", image_start_token="<img>", image_end_token="</img>")
    tokenizer = spoken(["<img>", "</img>", "<imgpad>"], named=named)
    vision = given(hidden_size=32, output_channels=16, num_hidden_layers=2, num_attention_heads=4, image_size=128)
    config = hf.GotOcr2Config(
        vision_config=vision | given(patch_size=16, window_size=4, global_attn_indexes=[1], mlp_dim=64),
        text_config=hf.Qwen2Config(**text_sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<imgpad>"),
        image_seq_length=4,
    )
    image = pictures("GotOcr2", size={"height": 128, "width": 128})
    return hf.GotOcr2ForConditionalGeneration(config), processor(
        "GotOcr2", image, tokenizer, chat_template=chatml("<imgpad>")
    )


def _blip2() -> Made:
    tokenizer = tokenizer_of(["<image>"], "</s>", bos=False)
    text = given(vocab_size=len(tokenizer), hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2)
    text |= given(num_attention_heads=4, max_position_embeddings=512, pad_token_id=0, bos_token_id=1)
    config = hf.Blip2Config(
        vision_config=hf.Blip2VisionConfig(**TOWER).to_dict(),
        qformer_config=hf.Blip2QFormerConfig(**SIZES, encoder_hidden_size=32, vocab_size=50).to_dict(),
        text_config=hf.OPTConfig(**text, eos_token_id=tokenizer.eos_token_id).to_dict(),
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    template = TURN.format(user="Question: ", image="", end="\n", reply="Answer:")  # its processor writes the tokens
    image = pictures("Blip", size=SIDE)
    made = processor("Blip2", image, tokenizer, num_query_tokens=4)
    made.chat_template = template  # its class takes none
    return hf.Blip2ForConditionalGeneration(config), made


def _granite4_vision() -> Made:
    tokenizer = spoken(["<image>"], named={"image_token": "<image>"})
    qformer = given(model_type="blip_2_qformer", num_hidden_layers=1, intermediate_size=64, cross_attention_frequency=1)
    config = hf.Granite4VisionConfig(
        vision_config=hf.SiglipVisionConfig(**TOWER | given(hidden_size=64, vision_use_head=False)),  # 64 a head
        text_config=text_sizes(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=GRID,
        downsample_rate="1/2",
        deepstack_layer_map=[[-1, 0]],
        spatial_target_layers=[],
        vision_feature_select_strategy="full",
        qformer_config=qformer,
    )
    image = pictures("LlavaNext", size={"shortest_edge": 56}, crop_size=SIDE, image_grid_pinpoints=GRID)
    settings = given(patch_size=14, vision_feature_select_strategy="full", downsample_rate="1/2")
    made = processor("Granite4Vision", image, tokenizer, **settings, chat_template=chatml("<image>"))
    return hf.Granite4VisionForConditionalGeneration(config), made


# ---- pictures of any shape ---------------------------------------------------------------------------------------
def _lighton_ocr() -> Made:
    named = given(image_token="<|image_pad|>", image_break_token="<|vision_pad|>", image_end_token="<|vision_end|>")
    tokenizer = spoken(list(named.values()), named=named)
    config = hf.LightOnOcrConfig(
        vision_config=hf.PixtralVisionConfig(**TOWER, head_dim=8),
        text_config=hf.Qwen3Config(**text_sizes(tokenizer, head_dim=8)),
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )
    image = pictures("Pixtral", size={"longest_edge": 56}, patch_size=14)
    settings = given(patch_size=14, spatial_merge_size=2, chat_template=chatml("<|image_pad|>"))
    return hf.LightOnOcrForConditionalGeneration(config), processor("LightOnOcr", image, tokenizer, **settings)


def _pixtral(kind: str, config: Any, merge: int, **settings: Any) -> Made:
    tokenizer = spoken(["[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"], "</s>", bos=True)
    its = config(
        vision_config=hf.PixtralVisionConfig(**TOWER, head_dim=8),
        text_config=hf.MistralConfig(**text_sizes(tokenizer, head_dim=8)),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        **settings,
    )
    image = pictures("Pixtral", size={"longest_edge": 56}, patch_size=14 * merge)
    template = TURN.format(user="[INST]", image="[IMG]", end="[/INST]", reply="")
    made = processor("Pixtral", image, tokenizer, patch_size=14, spatial_merge_size=merge, chat_template=template)
    return getattr(hf, f"{kind}ForConditionalGeneration")(its), made


def _glm(kind: str) -> Made:
    tokens = [f"<|{mark}{what}|>" for what in ("image", "video") for mark in ("begin_of_", "end_of_", "")]
    tokenizer = spoken([*tokens, "<|user|>"], "<|user|>")
    names = {
        f"{what}{name}_token_id": f"<|{mark}{what}|>"
        for what in ("image", "video")
        for name, mark in (("_start", "begin_of_"), ("_end", "end_of_"), ("", ""))
    }
    vision = given(depth=2, hidden_size=32, intermediate_size=64, num_heads=4, image_size=56, patch_size=14)
    vision |= given(spatial_merge_size=2, out_hidden_size=32)
    experts = given(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16) if kind == "Glm4vMoe" else {}
    config = getattr(hf, f"{kind}Config")(
        text_config=text_sizes(tokenizer, rope_parameters=MROPE | given(partial_rotary_factor=1.0), **experts),
        vision_config=hf.Glm4vConfig(vision_config=vision).vision_config if kind == "Glm46V" else vision,
        **ids(tokenizer, **names),
    )
    areas = {"shortest_edge": 2 * 28 * 28, "longest_edge": 2 * 56 * 56}
    its = "Glm46V" if kind == "GlmOcr" else kind.removesuffix("Moe")
    image = pictures(its, patch_size=14, merge_size=2, size=areas)
    template = chatml("<|begin_of_image|><|image|><|end_of_image|>")
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), processor(
        its, image, tokenizer, chat_template=template
    )


def _glm5_next() -> Made:
    tokens = [f"<|{mark}{what}|>" for what in ("image", "video") for mark in ("begin_of_", "end_of_", "")]
    tokenizer = spoken([*tokens, "<|user|>"], "<|user|>")
    text = given(num_hidden_layers=4, num_key_value_heads=4, moe_intermediate_size=16, n_routed_experts=4)
    text |= given(num_experts_per_tok=2, kv_lora_rank=8, q_lora_rank=8, qk_nope_head_dim=8, v_head_dim=8)
    text |= given(index_topk=8, index_head_dim=8, index_n_heads=2, index_kpool=4, linear_head_dim=8)
    text |= given(linear_num_heads=4, hc_mult=2, mlp_layer_types=["dense"] + ["sparse"] * 3)
    vision = given(depth=2, hidden_size=32, intermediate_size=64, num_heads=4, image_size=56, patch_size=14)
    config = hf.Glm5NextConfig(
        text_config=text_sizes(tokenizer, **text),
        vision_config=vision | given(out_hidden_size=32, projection_intermediate_size=64),
        **ids(tokenizer, image_token_id="<|image|>", video_token_id="<|video|>"),
    )
    image = pictures("Glm5Next", patch_size=14, merge_size=2, min_image_tokens=1, max_image_tokens=4)
    template = chatml("<|begin_of_image|><|image|><|end_of_image|>")
    made = processor("Glm5Next", image, tokenizer, chat_template=template)
    return hf.Glm5NextForConditionalGeneration(config), made


def _inkling2() -> Made:
    """All its layers have convolutions, and some a window; its pictures are cut as they are, never resized."""
    tokenizer = spoken(["<|unused_200054|>", "<|content_image|>"], bos=False)
    text = given(head_dim=8, swa_num_attention_heads=4, swa_num_key_value_heads=2, swa_head_dim=8, d_rel=4)
    text |= given(sliding_window_size=8, rel_extent=16, moe_intermediate_size=16, n_routed_experts=4)
    text |= given(num_experts_per_tok=2, n_layers_per_attn_res_block=2, unpadded_vocab_size=len(tokenizer))
    sizes = {name: size for name, size in text_sizes(tokenizer).items() if name != "intermediate_size"}
    config = hf.Inkling2Config(
        text_config=sizes | text | given(layer_types=["hybrid_sliding", "hybrid"]),
        vision_config=given(**SIZES, patch_size=14, posemb_grid_size=4, projection_hidden_dim=64, text_hidden_size=32),
        image_token_id=tokenizer.convert_tokens_to_ids("<|unused_200054|>"),
    )
    image = pictures("Inkling2", size={"height": 28, "width": 28})
    settings = given(image_token="<|unused_200054|>", chat_template=chatml("<|content_image|><|unused_200054|>"))
    return hf.Inkling2ForConditionalGeneration(config), processor("Inkling2", image, tokenizer, **settings)


def _perception_lm() -> Made:
    tokenizer = spoken(["<|image|>", "<|video|>"], named=given(image_token="<|image|>", video_token="<|video|>"))
    tower = given(
        img_size=[56, 56], depth=2, embed_dim=32, num_heads=4, global_pool="", use_post_transformer_norm=False
    )
    tower |= given(init_values=0.1, ref_feat_shape=[4, 4])
    vision = given(architecture="vit_pe_core_large_patch14_336", hidden_size=32, do_pooling=False, model_args=tower)
    config = hf.PerceptionLMConfig(
        vision_config=hf.TimmWrapperConfig(**vision, initializer_range=0.02),
        text_config=hf.LlamaConfig(**text_sizes(tokenizer)),
        projector_pooling_ratio=2,
        **ids(tokenizer, image_token_id="<|image|>", video_token_id="<|video|>"),
    )
    image = pictures("PerceptionLM", tile_size=56, max_num_tiles=4)
    template = chatml("<|image|>")
    made = processor("PerceptionLM", image, tokenizer, patch_size=14, pooling_ratio=2, chat_template=template)
    return hf.PerceptionLMForConditionalGeneration(config), made


def _minimax_m3_vl() -> Made:
    tokens = [f"]<]{what}[>[" for what in ("image", "video", "start of image", "end of image")]
    tokenizer = spoken(tokens)
    text = given(head_dim=8, rotary_dim=4, dense_intermediate_size=64, shared_intermediate_size=16)
    text |= given(num_experts_per_tok=2, num_local_experts=4, mlp_layer_types=["dense", "sparse"], index_n_heads=2)
    text |= given(index_head_dim=8, index_block_size=4, index_topk_blocks=3)
    config = hf.MiniMaxM3VLConfig(
        text_config=text_sizes(tokenizer, **text, layer_types=["full_attention", "minimax_m3_sparse"]),
        vision_config=TOWER,
        projector_hidden_size=32,
        **ids(tokenizer, image_token_index=tokens[0], video_token_index=tokens[1]),
    )
    image = pictures("MiniMaxM3VL", size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56})
    made = processor("MiniMaxM3VL", image, tokenizer, chat_template=chatml("]<]image[>["))
    return hf.MiniMaxM3SparseForConditionalGeneration(config), made


def _lfm2_vl() -> Made:
    named = given(image_token="<image>", image_start_token="<|image_start|>", image_end_token="<|image_end|>")
    named |= given(image_thumbnail="<|img_thumbnail|>")
    tokenizer = spoken(list(named.values()), named=named)
    kinds = given(num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"], block_auto_adjust_ff_dim=False)
    config = hf.Lfm2VlConfig(
        vision_config=hf.Siglip2VisionConfig(**SIZES, patch_size=14, num_patches=16, vision_use_head=False),
        text_config=hf.Lfm2Config(**text_sizes(tokenizer, **kinds)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        projector_hidden_size=64,
    )
    limits = given(min_image_tokens=1, max_image_tokens=4, max_num_patches=16, min_tiles=2, max_tiles=4, tile_size=56)
    image = pictures("Lfm2Vl", downsample_factor=2, encoder_patch_size=14, do_image_splitting=True, **limits)
    return hf.Lfm2VlForConditionalGeneration(config), processor(
        "Lfm2Vl", image, tokenizer, chat_template=chatml("<image>")
    )


def _ernie4_5_vl_moe() -> Made:
    named = {f"{what}{mark}_token": f"<|{what}{mark}|>".upper()
             for what in ("image", "video") for mark in ("", "_start", "_end")}  # fmt: skip
    tokenizer = spoken(list(named.values()), "</s>", named=named)
    experts = given(moe_intermediate_size=[16, 8], moe_k=2, moe_num_experts=4, moe_num_shared_experts=1)
    vision = given(depth=2, hidden_size=32, intermediate_size=64, num_heads=4, patch_size=14, spatial_merge_size=2)
    config = hf.Ernie4_5_VLMoeConfig(
        text_config=text_sizes(tokenizer, rope_parameters=MROPE, **experts),
        vision_config=vision,
        **ids(tokenizer, **{f"{name}_id": token for name, token in named.items()}),
    )
    image = pictures("Ernie4_5_VLMoe", patch_size=14, merge_size=2, size=AREAS)
    shown = "Picture 1: <|IMAGE_START|><|IMAGE|><|IMAGE_END|>"
    template = TURN.format(user="User: ", image=shown, end="\n", reply="Assistant: ")
    made = processor("Ernie4_5_VLMoe", image, tokenizer, chat_template=template)
    return hf.Ernie4_5_VLMoeForConditionalGeneration(config), made


def _hunyuan_vl() -> Made:
    """With a fourth position of each token: its place in the row."""
    named = given(image_token="<|image|>", image_start_token="<|image_start|>", image_end_token="<|image_end|>")
    tokenizer = spoken([*named.values(), "<|hy_user|>"], "<|eos|>", named=named)
    config = hf.HunYuanVLConfig(
        text_config=text_sizes(tokenizer, head_dim=8, rope_parameters=MROPE | given(mrope_section=[1, 1, 1, 1])),
        vision_config=given(**SIZES, patch_size=14, max_image_size=56, spatial_merge_size=2, out_hidden_size=32),
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    image = pictures("HunYuanVL", patch_size=14, merge_size=2, size=given(shortest_edge=56 * 56, longest_edge=84 * 84))
    template = TURN.format(user="<s>", image="<|image_start|><|image|><|image_end|>", end="<|hy_user|>", reply="")
    made = processor("HunYuanVL", image, tokenizer, chat_template=template)
    return hf.HunYuanVLForConditionalGeneration(config), made


def _minicpm(kind: str) -> Made:
    frames = {f"{part}_{end}_token": f"<{'/' * (end == 'end')}{mark}>"
              for part, mark in (("image", "image"), ("slice", "slice"), ("image_id", "image_id"))
              for end in ("start", "end")}  # fmt: skip
    named = given(image_token="<|image_pad|>", video_token="<|video_pad|>", **frames)
    tokenizer = spoken(list(named.values()), named=named)
    text = text_sizes(tokenizer, model_type="qwen3_5_text", head_dim=8, num_hidden_layers=4, linear_conv_kernel_dim=4)
    text |= given(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4)
    text |= given(layer_types=["linear_attention"] * 3 + ["full_attention"])
    names = given(image_token_id="<|image_pad|>", video_token_id="<|video_pad|>")
    if kind == "MiniCPMV4_7":
        names |= given(image_start_id="<image>", image_end_id="</image>", slice_start_id="<slice>")
        names |= given(slice_end_id="</slice>")
    config = getattr(hf, f"{kind}Config")(
        text_config=text | given(rope_parameters=MROPE | given(partial_rotary_factor=1.0)),
        vision_config=given(**SIZES, image_size=112, patch_size=14),
        insert_layer_id=0,
        image_size=112,
        **ids(tokenizer, **names),
    )
    image = pictures("MiniCPMV4_6", scale_resolution=112, patch_size=14)
    made = processor(kind, image, tokenizer, chat_template=chatml("<|image_pad|>\n"))
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), made


def _lfm3_vl() -> Made:
    tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = spoken(tokens)
    names = given(image_token_id="<|image_pad|>", video_token_id="<|video_pad|>")
    names |= given(vision_start_token_id="<|vision_start|>", vision_end_token_id="<|vision_end|>")
    kinds = given(
        num_hidden_layers=3, layer_types=["conv", "sliding_attention", "full_attention"], head_dim=8, sliding_window=12
    )
    vision = given(**SIZES, num_key_value_heads=2, patch_size=14, temporal_patch_size=2, spatial_merge_size=2)
    config = hf.Lfm3VlConfig(
        text_config=hf.Lfm3Config(**text_sizes(tokenizer, **kinds)),
        vision_config=vision | given(layer_types=["conv", "full_attention"]),
        projector_hidden_size=64,
        **ids(tokenizer, **names),
    )
    image = pictures("Qwen2VL", patch_size=14, merge_size=2, size=AREAS)
    template = chatml("<|vision_start|><|image_pad|><|vision_end|>")
    return hf.Lfm3VlForConditionalGeneration(config), processor("Lfm3Vl", image, tokenizer, chat_template=template)


def _cohere_compass() -> Made:
    tokens = ["<|VISION_START|>", "<|VISION_END|>", "<|IMAGE_PAD|>", "<|VIDEO_PAD|>"]
    tokenizer = spoken(tokens)
    names = given(image_token_id="<|IMAGE_PAD|>", video_token_id="<|VIDEO_PAD|>")
    names |= given(vision_start_token_id="<|VISION_START|>", vision_end_token_id="<|VISION_END|>")
    vision = given(depth=3, hidden_size=32, intermediate_size=64, num_heads=4, patch_size=14, temporal_patch_size=2)
    vision |= given(
        spatial_merge_size=2, out_hidden_size=32, num_position_embeddings=16, deepstack_visual_indexes=[0, 1]
    )
    kinds = given(layer_types=["sliding_attention", "full_attention"], sliding_window=12, logit_scale=0.5)
    text = text_sizes(tokenizer, rope_parameters={"sliding_attention": MROPE, "full_attention": None}, **kinds)
    config = hf.CohereCompassConfig(text_config=text, vision_config=vision, **ids(tokenizer, **names))
    image = pictures("CohereCompass", patch_size=14, merge_size=2, size=AREAS)
    template = chatml("<|VISION_START|><|IMAGE_PAD|><|VISION_END|>")
    return hf.CohereCompassForConditionalGeneration(config), processor(
        "CohereCompass", image, tokenizer, chat_template=template
    )


def _kimi_k25() -> Made:
    named = given(image_token="<|media_pad|>", video_token="<|kimi_k25_video_placeholder|>")
    tokens = ["<|media_begin|>", "<|media_end|>", "<|media_content|>"]
    tokenizer = spoken([*tokens, *named.values()], named=named)
    sizes = given(num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    sizes |= given(first_k_dense_replace=1, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=8, qk_nope_head_dim=8)
    vision = given(patch_size=14, pos_emb_height=8, pos_emb_width=8, num_attention_heads=4, num_hidden_layers=2)
    names = given(image_token_id="<|media_pad|>", video_token_id="<|kimi_k25_video_placeholder|>")
    names |= given(vision_start_token_id="<|media_begin|>", vision_end_token_id="<|media_end|>")
    config = hf.Kimi_K25Config(
        text_config=hf.DeepseekV3Config(**text_sizes(tokenizer, **sizes, v_head_dim=8, n_group=1, topk_group=1)),
        vision_config=vision | given(hidden_size=32, intermediate_size=64),
        projection_hidden_size=32,
        **ids(tokenizer, **names),
    )
    image = pictures("Kimi_K25", patch_size=14, merge_size=2)
    template = chatml("<|media_begin|><|media_pad|><|media_end|>")
    made = processor("Kimi_K25", image, tokenizer, chat_template=template)
    return hf.Kimi_K25ForConditionalGeneration(config), made


def _mistral_large4() -> Made:
    tokenizer = spoken(["[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"], "</s>", bos=True)
    sizes = given(num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    sizes |= given(kv_lora_rank=8, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8)
    config = hf.MistralLarge4Config(
        vision_config=hf.PixtralVisionConfig(**TOWER, head_dim=8),
        text_config=text_sizes(tokenizer, **sizes, index_head_dim=16, index_n_heads=2),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    image = pictures("Pixtral", size={"longest_edge": 56}, patch_size=28)
    template = TURN.format(user="[INST]", image="[IMG]", end="[/INST]", reply="")
    made = processor("Pixtral", image, tokenizer, patch_size=14, spatial_merge_size=2, chat_template=template)
    return hf.MistralLarge4ForConditionalGeneration(config), made


def _muse(kind: str) -> Made:
    tokens = ["<|patch|>", "<|image_start|>", "<|image_end|>", "<|vid_start|>", "<|vid_end|>", "<|video|>"]
    sounds = ["<|audio|>", "<|soft_audio_start|>", "<|soft_audio_end|>"]
    tokenizer = spoken([*tokens, "<|vid_frame_separator|>", *sounds], "<|eot|>")
    text = text_sizes(tokenizer, head_dim=8, sliding_window=12, layer_types=["sliding_attention", "full_attention"])
    further: dict[str, Any] = {}
    if kind == "MuseSpark":
        text |= given(moe_intermediate_size=16, num_local_experts=4, num_experts_per_tok=2, moe_hidden_size=32)
        further = given(audio_config=given(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_hidden_size=32))
    config = getattr(hf, f"{kind}Config")(
        vision_config=given(**SIZES, patch_size=14, pos_emb_height=8, pos_emb_width=8, max_position_embeddings=64),
        text_config=text,
        projector_hidden_size=32,
        out_hidden_size=128,
        **ids(tokenizer, image_token_id="<|patch|>", video_token_id="<|video|>"),
        **further,
    )
    image = pictures("MuseGlimmer", patch_size=14, merge_size=2, max_image_tokens=4)
    made = processor(kind, image, tokenizer, chat_template=chatml("<|patch|>"))
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), made


def _nemotron_h_omni() -> Made:
    """Without a part for sound; its output head is the LLM's."""
    named = given(image_token_id="<image>", video_token_id="<video>", audio_token_id="<so_embedding>")
    tokenizer = spoken([*named.values(), "<so_start>", "<so_end>", "<img>", "</img>"])
    text = text_sizes(tokenizer, layers_block_type=["mamba", "attention", "moe"], head_dim=8, use_mamba_kernels=False)
    text |= given(ssm_state_size=8, mamba_num_heads=4, mamba_head_dim=16, n_groups=2, chunk_size=8, n_routed_experts=4)
    text |= given(moe_intermediate_size=16, moe_shared_expert_intermediate_size=16)
    vision = given(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2.0, patch_size=14)
    vision |= given(image_size=56, max_img_size=112, num_cls_tokens=1, num_registers=1, summary_idxs=[0])
    del text["num_hidden_layers"]
    config = hf.NemotronH_Omni_Reasoning_V3_Config(
        text_config=text,
        vision_config=vision | given(video_temporal_patch_size=2),
        audio_config=None,
        vision_hidden_size=32,
        projector_hidden_size=32,
        **ids(tokenizer, **named),
    )
    kind = "NemotronH_Omni_Reasoning_V3"
    image = pictures(kind, patch_size=14, min_num_patches=4, max_num_patches=16)
    return hf.NemotronH_Omni_Reasoning_V3(config), processor(kind, image, tokenizer, chat_template=chatml("<image>"))


def _step3p7() -> Made:
    tokens = ["<im_patch>", "<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>"]
    tokenizer = spoken(tokens)
    experts = given(moe_intermediate_size=16, n_routed_experts=4, num_local_experts=4, num_experts_per_tok=2)
    kinds = given(layer_types=["sliding_attention", "full_attention"], mlp_layer_types=["dense", "sparse"])
    config = hf.Step3p7Config(
        vision_config=TOWER | given(image_size=112, max_position_embeddings=64),
        text_config=text_sizes(tokenizer, **experts, **kinds, head_dim=8, sliding_window=12, share_expert_dim=16),
        image_token_id=tokenizer.convert_tokens_to_ids("<im_patch>"),
    )
    image = pictures("Step3p7", size={"height": 112, "width": 112}, patch_size=56)
    made = processor("Step3p7", image, tokenizer, chat_template=chatml("<im_patch>"))
    return hf.Step3p7ForConditionalGeneration(config), made


# ---- Gemma -------------------------------------------------------------------------------------------------------
WINDOWS = given(head_dim=8, sliding_window=12, num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"])


def _gemma4() -> Made:
    named = given(image_token="<|image|>", boi_token="<|boi|>", eoi_token="<|eoi|>", audio_token="<|audio|>")
    named |= given(boa_token="<|boa|>", eoa_token="<|eoa|>")
    tokenizer = spoken(["<start_of_turn>", *named.values(), "<|video|>"], "<end_of_turn>", named=named)
    text = text_sizes(tokenizer, **WINDOWS, vocab_size_per_layer_input=len(tokenizer), hidden_size_per_layer_input=0)
    vision = given(**SIZES, num_key_value_heads=4, head_dim=8, patch_size=14, pooling_kernel_size=2)
    names = given(image_token_id="<|image|>", boi_token_id="<|boi|>", eoi_token_id="<|eoi|>", boa_token_id="<|boa|>")
    names |= given(video_token_id="<|video|>", audio_token_id="<|audio|>", eoa_token_index="<|eoa|>")
    config = hf.Gemma4Config(
        text_config=text | given(tie_word_embeddings=True),
        vision_config=vision | given(position_embedding_size=64),
        **ids(tokenizer, **names),
    )
    image = pictures("Gemma4", patch_size=14, pooling_kernel_size=2, max_soft_tokens=70)
    turn = given(user="<s><start_of_turn>user\n", end="<end_of_turn>\n", reply="<start_of_turn>model\n")
    made = processor("Gemma4", image, tokenizer, chat_template=TURN.format(image="<|image|>", **turn))
    return hf.Gemma4ForConditionalGeneration(config), made


def _gemma3n() -> Made:
    named = given(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    named |= given(audio_token="<audio_soft_token>", boa_token="<start_of_audio>", eoa_token="<end_of_audio>")
    tokenizer = spoken(["<start_of_turn>", *named.values()], "<end_of_turn>", named=named)
    words = len(tokenizer)
    text = text_sizes(tokenizer, **WINDOWS, num_kv_shared_layers=0, vocab_size_per_layer_input=words)
    text |= given(hidden_size_per_layer_input=8, laurel_rank=4, activation_sparsity_pattern=[0.0, 0.0])
    audio = given(hidden_size=32, conf_num_attention_heads=4, conf_num_hidden_layers=1, vocab_size=8)
    config = hf.Gemma3nConfig(
        text_config=text | given(altup_num_inputs=2),
        vision_config=given(
            architecture="mobilenetv5_300m_enc", hidden_size=2048, vocab_size=8, vocab_offset=words - 8
        ),
        audio_config=audio | given(vocab_offset=words, sscp_conv_channel_size=[8, 8]),
        vision_soft_tokens_per_image=256,
        audio_soft_tokens_per_image=4,
        **ids(tokenizer, **{f"{name}_id": token for name, token in named.items()}),
    )
    image = pictures("Siglip", size={"height": 256, "width": 256})
    turn = given(user="<s><start_of_turn>user\n", end="<end_of_turn>\n", reply="<start_of_turn>model\n")
    template = TURN.format(image="<image_soft_token>", **turn)
    made = processor("Gemma3n", image, tokenizer, image_seq_length=256, chat_template=template)
    return hf.Gemma3nForConditionalGeneration(config), made


def _shieldgemma2() -> Made:
    """Says of a picture whether it breaks one of some rules, and of nothing else."""
    named = given(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    tokenizer = spoken(["<start_of_turn>", *named.values()], "<end_of_turn>", named=named, bos=True)
    names = given(boi_token_index="<start_of_image>", eoi_token_index="<end_of_image>")
    config = hf.ShieldGemma2Config(
        text_config=hf.Gemma3TextConfig(**text_sizes(tokenizer, **WINDOWS, tie_word_embeddings=True)),
        vision_config=hf.SiglipVisionConfig(**TOWER, vision_use_head=False),
        mm_tokens_per_image=4,
        **ids(tokenizer, **names, image_token_index="<image_soft_token>"),
    )
    turn = given(user="<s><start_of_turn>user\n", end="<end_of_turn>\n", reply="<start_of_turn>model\n")
    template = TURN.format(image="<start_of_image>", **turn)
    made = processor(
        "ShieldGemma2", pictures("Gemma3", size=SIDE), tokenizer, image_seq_length=4, chat_template=template
    )
    return hf.ShieldGemma2ForImageClassification(config), made


# ---- built unlike the others -------------------------------------------------------------------------------------
def _llama4() -> Made:
    tokens = ["<|image|>", "<|image_start|>", "<|image_end|>", "<|patch|>"]
    tokenizer = spoken([*tokens, "<|tile_x_separator|>", "<|tile_y_separator|>"], "<|eot|>")
    text = text_sizes(tokenizer, head_dim=8, intermediate_size_mlp=64, num_local_experts=2, num_experts_per_tok=1)
    vision = given(vision_output_dim=32, projector_input_dim=32, projector_output_dim=32, pixel_shuffle_ratio=0.5)
    names = given(boi_token_index="<|image_start|>", eoi_token_index="<|image_end|>", image_token_index="<|patch|>")
    config = hf.Llama4Config(
        vision_config=TOWER | vision | given(intermediate_size=128),
        text_config=text | given(interleave_moe_layer_step=1, attention_chunk_size=128),
        **ids(tokenizer, **names),
    )
    settings = given(patch_size=14, pixel_shuffle_ratio=0.5, chat_template=chatml("<|image|>"))
    made = processor("Llama4", pictures("Llama4", size=SIDE), tokenizer, **settings)
    return hf.Llama4ForConditionalGeneration(config), made


def _mllama() -> Made:
    tokenizer = spoken(["<|image|>"], "<|eot|>", bos=True)
    vision = given(hidden_size=32, num_hidden_layers=2, num_global_layers=1, attention_heads=4, intermediate_size=64)
    vision |= given(vision_output_dim=64, image_size=56, patch_size=14, max_num_tiles=4)
    ratios = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]
    config = hf.MllamaConfig(
        vision_config=vision | given(intermediate_layers_indices=[1], supported_aspect_ratios=ratios),
        text_config=text_sizes(tokenizer, num_hidden_layers=3, cross_attention_layers=[1]),
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    image = pictures("Mllama", size=SIDE, max_image_tiles=4)
    return hf.MllamaForConditionalGeneration(config), processor(
        "Mllama", image, tokenizer, chat_template=chatml("<|image|>")
    )


def _fast_vlm() -> Made:
    tokenizer = spoken(["<image>"])
    vision = given(architecture="fastvit_mci3", do_pooling=True, global_pool="avg", hidden_size=3072)
    config = hf.FastVlmConfig(
        vision_config=hf.TimmWrapperConfig(**vision, initializer_range=0.02, model_args={"inference_mode": True}),
        text_config=hf.Qwen2Config(**text_sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    image = pictures("CLIP", size={"shortest_edge": 256}, crop_size={"height": 256, "width": 256})
    settings = given(patch_size=64, vision_feature_select_strategy="full", chat_template=chatml("<image>"))
    return hf.FastVlmForConditionalGeneration(config), processor("Llava", image, tokenizer, **settings)


def _instructblip() -> Made:
    """Its Q-Former reads the question too, so what is said of a picture depends on it."""
    tokenizer = tokenizer_of(["<image>"], "</s>", bos=False)
    text = given(vocab_size=len(tokenizer), hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2)
    text |= given(num_attention_heads=4, max_position_embeddings=512, pad_token_id=0, bos_token_id=1)
    config = hf.InstructBlipConfig(
        vision_config=hf.InstructBlipVisionConfig(**TOWER).to_dict(),
        qformer_config=given(**SIZES, encoder_hidden_size=32, vocab_size=len(tokenizer)),
        text_config=hf.OPTConfig(**text, eos_token_id=tokenizer.eos_token_id).to_dict(),
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    made = processor("InstructBlip", pictures("Blip", size=SIDE), tokenizer, tokenizer, num_query_tokens=4)
    return hf.InstructBlipForConditionalGeneration(config), made


def _chameleon() -> Made:
    """Its pictures become words of a codebook."""
    named = given(image_token="<image>", boi_token="<racm3:break>", eoi_token="<eoss>")
    codes = [f"IMGIMG{chr(65 + i)}Z" for i in range(8)]
    tokenizer = spoken([*named.values(), *codes, "<reserved08706>"], "</s>", named=named, bos=True)
    tokenizer.sep_token = "<reserved08706>"
    vq = given(embed_dim=4, num_embeddings=8, latent_channels=32, resolution=56, base_channels=32)
    config = hf.ChameleonConfig(
        **text_sizes(tokenizer),
        vq_config=vq | given(channel_multiplier=[1, 1, 1], num_res_blocks=1),
        vocabulary_map=tokenizer.get_vocab(),
    )
    image = pictures("Chameleon", size={"shortest_edge": 56}, crop_size=SIDE)
    made = processor("Chameleon", image, tokenizer, image_seq_length=196)
    made.chat_template = TURN.format(user="", image="<image>", end="", reply="")
    return hf.ChameleonForConditionalGeneration(config), made


def _emu3() -> Made:
    """Its pictures become words of a codebook."""
    named = given(image_token="<image>", boi_token="<|image start|>", eoi_token="<|image end|>")
    named |= given(image_wrapper_token="<|image token|>", eof_token="<|extra_201|>")
    codes = [f"<|visual token {i:06d}|>" for i in range(8)]
    tokenizer = spoken([*named.values(), *codes, "<|extra_200|>"], "</s>", named=named, bos=False)
    vq = given(codebook_size=8, embed_dim=4, latent_channels=4, base_channels=32, channel_multiplier=[1, 1, 1, 1])
    config = hf.Emu3Config(
        text_config=text_sizes(tokenizer),
        vq_config=vq | given(num_res_blocks=1, hidden_size=32, attn_resolutions=[]),
        vocabulary_map=tokenizer.get_vocab(),
    )
    image = pictures("Emu3", min_pixels=56 * 56, max_pixels=112 * 112)
    template = TURN.format(user="USER: ", image="<image>", end=" ", reply="ASSISTANT:")
    return hf.Emu3ForConditionalGeneration(config), processor("Emu3", image, tokenizer, chat_template=template)


def _florence2() -> Made:
    """An encoder and a decoder, and no chat template."""
    tokenizer = tokenizer_of(["<image>"], "</s>", bos=False, named={"image_token": "<image>"})
    text = given(model_type="bart", d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4)
    text |= given(decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=len(tokenizer))
    vision = given(depths=[1] * 4, embed_dim=[16, 16, 16, 32], num_heads=[2, 2, 2, 4], num_groups=[2, 2, 2, 4])
    config = hf.Florence2Config(
        text_config=text | given(pad_token_id=0, bos_token_id=1, eos_token_id=tokenizer.eos_token_id),
        vision_config=vision | given(projection_dim=32, window_size=4),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    image = pictures("CLIP", size={"height": 64, "width": 64}, crop_size={"height": 64, "width": 64})
    image.image_seq_length = 5
    return hf.Florence2ForConditionalGeneration(config), processor("Florence2", image, tokenizer)


def _molmo2() -> Made:
    tokens = ["<|image|>", "<im_patch>", "<im_start>", "<im_end>", "<low_res_im_start>", "<im_low>", "<im_col>"]
    tokenizer = spoken([*tokens, "<frame_start>", "<frame_end>", "<|video|>"], named={"image_token": "<|image|>"})
    heads = given(num_key_value_heads=4, head_dim=8)
    adapter = given(hidden_size=32, num_attention_heads=4, intermediate_size=64, text_hidden_size=32, **heads)
    names = given(image_start_token_id="<im_start>", low_res_image_start_token_id="<low_res_im_start>")
    names |= given(image_end_token_id="<im_end>", image_patch_id="<im_patch>")
    config = hf.Molmo2Config(
        vision_config=given(**SIZES, **heads, image_size=[56, 56], patch_size=14, num_position_embeddings=16),
        adapter_config=adapter | given(vision_feature_layer=[-1, -2]),
        text_config=text_sizes(tokenizer, head_dim=8) | given(additional_vocab_size=16),
        **ids(tokenizer, **names, frame_start_token_id="<frame_start>", frame_end_token_id="<frame_end>"),
    )
    image = pictures("Molmo2", size=SIDE, patch_size=14, max_crops=4, overlap_margins=[1, 1])
    return hf.Molmo2ForConditionalGeneration(config), processor(
        "Molmo2", image, tokenizer, chat_template=chatml("<|image|>")
    )


_MAKERS: dict[str, Callable[[], Made]] = {
    "qwen3_vl": lambda: _qwen("Qwen3VL"),
    "qwen3_vl_moe": lambda: _qwen("Qwen3VLMoe"),
    "qwen3_5": lambda: _qwen("Qwen3_5"),
    "qwen3_5_moe": lambda: _qwen("Qwen3_5Moe"),
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
    "paligemma2": _paligemma2,
    "gemma4": _gemma4,
    "gemma3n": _gemma3n,
    "pixtral": lambda: _pixtral("Llava", hf.LlavaConfig, 1, vision_feature_select_strategy="full"),
    "mistral3": lambda: _pixtral("Mistral3", hf.Mistral3Config, 2, spatial_merge_size=2, tie_word_embeddings=False),
    "llama4": _llama4,
    "mllama": _mllama,
    "glm4v": lambda: _glm("Glm4v"),
    "glm46v": lambda: _glm("Glm46V"),
    "glm4v_moe": lambda: _glm("Glm4vMoe"),
    "cohere2_vision": _cohere2_vision,
    "fast_vlm": _fast_vlm,
    "lfm2_vl": _lfm2_vl,
    "florence2": _florence2,
    "deepseek_vl": _deepseek_vl,
    "vipllava": _vipllava,
    "aria": _aria,
    "got_ocr2": _got_ocr2,
    "blip2": _blip2,
    "molmo2": _molmo2,
    "kimi_k25": _kimi_k25,
    "granite4_vision": _granite4_vision,
    "qwen2_5_omni_thinker": lambda: _qwen_omni("Qwen2_5Omni"),
    "qwen3_omni_moe_thinker": lambda: _qwen_omni("Qwen3OmniMoe"),
    "qwen4_exp": lambda: _qwen("Qwen4Exp"),
    "exaone4_5": _exaone4_5,
    "glm_ocr": lambda: _glm("GlmOcr"),
    "glm5_next": _glm5_next,
    "minimax_m3_vl": _minimax_m3_vl,
    "inkling2": _inkling2,
    "perception_lm": _perception_lm,
    "hyperclovax_vision_v2": _hyperclovax,
    "video_llama_3": _video_llama_3,
    "paddleocr_vl": _paddleocr_vl,
    "granite_docling": _granite_docling,
    "lighton_ocr": _lighton_ocr,
    "qianfan_ocr": _qianfan_ocr,
    "janus": _janus,
    "shieldgemma2": _shieldgemma2,
    "instructblip": _instructblip,
    "chameleon": _chameleon,
    "emu3": _emu3,
    "aya_vision": _aya_vision,
    "llava_next_video": _llava_next_video,
    "ovis2": _ovis2,
    "deepseek_vl_hybrid": _deepseek_vl_hybrid,
    "video_llava": _video_llava,
    "ernie4_5_vl_moe": _ernie4_5_vl_moe,
    "hunyuan_vl": _hunyuan_vl,
    "minicpmv4_6": lambda: _minicpm("MiniCPMV4_6"),
    "minicpmv4_7": lambda: _minicpm("MiniCPMV4_7"),
    "lfm3_vl": _lfm3_vl,
    "cohere_compass": _cohere_compass,
    "mistral_large4": _mistral_large4,
    "muse_glimmer": lambda: _muse("MuseGlimmer"),
    "muse_spark": lambda: _muse("MuseSpark"),
    "step3p7": _step3p7,
    "nemotron_h_omni": _nemotron_h_omni,
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
