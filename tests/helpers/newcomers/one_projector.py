"""Tiny models with one projector behind one tower, whose pictures are squares."""

from __future__ import annotations

from tests.helpers.families import SIZES, TURN, text_sizes, tokenizer_of
from tests.helpers.newcomers.making import (
    GRID,
    SIDE,
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


def internvl() -> Made:
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


def llava_onevision() -> Made:
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


def llava_next_video() -> Made:
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


def ovis2() -> Made:
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


def paligemma2() -> Made:
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


def cohere2_vision() -> Made:
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


def aya_vision() -> Made:
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


def video_llava() -> Made:
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


def deepseek_vl() -> Made:
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


def janus() -> Made:
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


def deepseek_vl_hybrid() -> Made:
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


def vipllava() -> Made:
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


def granite_docling() -> Made:
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


def hyperclovax() -> Made:
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


def qianfan_ocr() -> Made:
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


def aria() -> Made:
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


def got_ocr2() -> Made:
    """Its processor writes 256 placeholders whatever the model: here too the tower has 64 patches a side."""
    named = given(image_token="<imgpad>", image_start_token="<img>", image_end_token="</img>")
    tokenizer = spoken(["<img>", "</img>", "<imgpad>"], named=named)
    vision = given(hidden_size=32, output_channels=16, num_hidden_layers=2, num_attention_heads=4, image_size=256)
    config = hf.GotOcr2Config(
        vision_config=vision | given(patch_size=4, window_size=8, global_attn_indexes=[], mlp_dim=64),
        text_config=hf.Qwen2Config(**text_sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<imgpad>"),
        image_seq_length=256,
    )
    image = pictures("GotOcr2", size={"height": 256, "width": 256})
    return hf.GotOcr2ForConditionalGeneration(config), processor(
        "GotOcr2", image, tokenizer, chat_template=chatml("<imgpad>")
    )


def blip2() -> Made:
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


def granite4_vision() -> Made:
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
