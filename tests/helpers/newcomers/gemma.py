"""Tiny models of what is made of Gemma."""

from __future__ import annotations

from tests.helpers.families import SIZES, TURN, text_sizes
from tests.helpers.newcomers.making import (
    SIDE,
    TOWER,
    Made,
    given,
    hf,
    ids,
    pictures,
    processor,
    spoken,
)

WINDOWS = given(head_dim=8, sliding_window=12, num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"])


def gemma4() -> Made:
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


def gemma3n() -> Made:
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


def shieldgemma2() -> Made:
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
