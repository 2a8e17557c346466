"""A tiny LLaVA that is like llava-hf/llava-1.5-7b-hf in all but its size: tokenizer, chat template, configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, trainers

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""Its chat template: a space after every text, and no end token anywhere."""
PIECES = 700
"""Size of the vocabulary before image and padding token: 256 bytes, and pieces of what the benchmark says."""
ROUND = 32
"""The embedding has more rows than there are tokens: the released model has 32,064 for 32,002."""


def released_llava(folder: Path, texts: Iterable[str], width: int = 32, side: int = 28) -> Path:
    """The folder of a model with random weights whose tokenizer was trained on `texts`."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(texts)
    image, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<image>", "<pad>"))
    layers: dict[str, Any] = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 4}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            **layers, num_hidden_layers=3, image_size=side, patch_size=14, projection_dim=width
        ),
        text_config=transformers.LlamaConfig(
            **layers, num_hidden_layers=2, vocab_size=-(-len(tokenizer) // ROUND) * ROUND, max_position_embeddings=4096
        ),
        image_token_index=image,
        image_seq_length=(side // 14) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        pad_token_id=pad,
    )
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}, do_center_crop=True
        ),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer(texts: Iterable[str]) -> Any:
    """A Llama tokenizer: pieces with a mark for the space before a word, bytes for what no piece has, left padding."""
    kept = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    words = (f"▁{word}" for text in texts for word in text.split())
    learner.train_from_iterator(words, trainers.BpeTrainer(vocab_size=PIECES, special_tokens=kept, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = transformers.LlamaTokenizer(
        vocab=learned["vocab"], merges=merges, add_bos_token=True, padding_side="left"
    )
    tokenizer.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": ["<image>"]})
    return tokenizer
