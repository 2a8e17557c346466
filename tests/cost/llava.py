"""LLaVA-1.5-7B as its configuration says it is, without its weights, with a processor that stands in for its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from study.data.synthetic_language import words
from study.model.vlm import VLM

SIDE = 336
PATCH = 14
IMAGE_TOKEN, PAD_TOKEN = 32_000, 32_001

_TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def config() -> LlavaConfig:
    """The configuration of llava-hf/llava-1.5-7b-hf: CLIP ViT-L/14-336, a two-layer projector, Vicuna-7B.

    What the tower's last layer says is not read (`vision_feature_layer` -2).
    """
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=768,
    )
    text = LlamaConfig(
        vocab_size=32_064,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        pad_token_id=PAD_TOKEN,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_TOKEN,
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def llava(device: str) -> VLM:
    """The model in bfloat16: on `meta` shapes alone, elsewhere with random weights."""
    with torch.device(device):
        model: Any = AutoModelForImageTextToText.from_config(config(), dtype=torch.bfloat16, attn_implementation="sdpa")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return VLM(model.eval(), processor())


@contextmanager
def on_meta() -> Iterator[None]:
    """Let a model run on meta tensors: transformers' check that placeholders match pictures would read a value."""
    with patch.dict(os.environ, TRANSFORMERS_DISABLE_TORCH_CHECK="1"):
        yield


def processor() -> LlavaProcessor:
    """One that counts tokens as LLaVA's does those of a picture, and every word or mark of a text as one."""
    known = ("<unk>", "<s>", "</s>", "USER", "ASSISTANT", *words(), *(f"q{i}" for i in range(100)))
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(known))} | {"<image>": IMAGE_TOKEN, "<pad>": PAD_TOKEN}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    side = {"height": SIDE, "width": SIDE}
    return LlavaProcessor(
        CLIPImageProcessorPil(size=side, crop_size=side),
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            unk_token="<unk>",
            extra_special_tokens={"image_token": "<image>"},
        ),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )
