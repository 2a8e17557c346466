"""Tiny models that take pictures of any shape."""

from __future__ import annotations

from typing import Any

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


def lighton_ocr() -> Made:
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


def pixtral(kind: str, config: Any, merge: int, **settings: Any) -> Made:
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


def glm(kind: str) -> Made:
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


def glm5_next() -> Made:
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


def inkling2() -> Made:
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


def perception_lm() -> Made:
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


def minimax_m3_vl() -> Made:
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


def lfm2_vl() -> Made:
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


def ernie4_5_vl_moe() -> Made:
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


def hunyuan_vl() -> Made:
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


def minicpm(kind: str) -> Made:
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


def lfm3_vl() -> Made:
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


def cohere_compass() -> Made:
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


def kimi_k25() -> Made:
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


def mistral_large4() -> Made:
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


def muse(kind: str) -> Made:
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


def nemotron_h_omni() -> Made:
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


def step3p7() -> Made:
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
