"""Tiny models of what Qwen makes."""

from __future__ import annotations

from tests.helpers.families import SIZES, TURN, text_sizes
from tests.helpers.newcomers.making import (
    AREAS,
    MROPE,
    TOWER,
    Made,
    chatml,
    given,
    hf,
    ids,
    pictures,
    processor,
    spoken,
)


def qwen(kind: str) -> Made:
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


def qwen_omni(kind: str) -> Made:
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


def exaone4_5() -> Made:
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


def paddleocr_vl() -> Made:
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


def video_llama_3() -> Made:
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
