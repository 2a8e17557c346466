"""Tiny models that are built unlike the others."""

from __future__ import annotations

from tests.helpers.families import SIZES, TURN, text_sizes, tokenizer_of
from tests.helpers.newcomers.making import (
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


def llama4() -> Made:
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


def fast_vlm() -> Made:
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


def instructblip() -> Made:
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


def chameleon() -> Made:
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


def emu3() -> Made:
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


def florence2() -> Made:
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


def molmo2() -> Made:
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
