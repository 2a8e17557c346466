"""Tiny random models of every family, each a Hugging Face folder of the true classes with a PIL image processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from study.base_models.tiny import Tiny
from study.data.synthetic_language import words
from study.model.families._images_and_text import images_and_text
from study.model.families.smolvlm import SmolVLMProcessor

TURN = (
    "{{% for message in messages %}}{user}{{% for part in message['content'] %}}"
    "{{% if part['type'] == 'image' %}}{image}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{end}"
    "{{% endfor %}}{{% if add_generation_prompt %}}{reply}{{% endif %}}"
)
DATED = (
    "{{% if not date_string is defined %}}{{% set date_string = strftime_now('%d %b %Y') %}}{{% endif %}}<s>"
    "{{% set shown = namespace(any=false) %}}{{% for message in messages %}}{{% for part in message['content'] %}}"
    "{{% if part['type'] == 'image' %}}{{% set shown.any = true %}}{{% endif %}}{{% endfor %}}{{% endfor %}}"
    "{{% if not shown.any %}}{system}Today Date: {{{{ date_string }}}}\n\n{end}{{% endif %}}"
)
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def tokenizer_of(special: Sequence[str], end: str, *, bos: bool, named: dict[str, str] | None = None) -> Any:
    """Words of the synthetic language and special tokens; with `bos` every text begins with `<s>`."""
    kept = ("<pad>", "<s>", "<unk>", end, *special)
    spoken = sorted({*words(), "user", "assistant", "model", "User", "Assistant", "USER", "ASSISTANT"})
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*kept, *spoken]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token=end,
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=named or list(special),
        padding_side="left",
        clean_up_tokenization_spaces=True,
    )


def text_sizes(tokenizer: Any, **changes: Any) -> dict[str, Any]:
    """The configuration of a tiny language model."""
    return {
        **SIZES,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **changes,
    }


def save_folder(folder: Path, model: Any, processor: Any, *, kept: str | None = None) -> Path:
    """Draw weights anew, larger, but for those that are `kept`, and save model and processor."""
    with torch.no_grad():  # as initialized, the answers of so small a model hardly depend on what it sees
        drawn = (weight for name, weight in model.named_parameters() if kept is None or kept not in name)
        for weight in drawn:
            if weight.ndim > 1 or not weight.any():
                weight.normal_(0, 0.15)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _llava(folder: Path) -> Path:
    return Tiny(steps=0, width=32, layers=2)(folder)


def _llava_next(folder: Path) -> Path:
    tokenizer = tokenizer_of(["<image>"], "</s>", bos=True, named={"image_token": "<image>"})
    grid = [[28, 56], [56, 28], [56, 56]]
    side = {"height": 28, "width": 28}
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**SIZES, image_size=28, patch_size=14, projection_dim=32),
        text_config=transformers.LlamaConfig(**text_sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-2,
    )
    processor = transformers.LlavaNextProcessor(
        transformers.LlavaNextImageProcessorPil(size={"shortest_edge": 28}, crop_size=side, image_grid_pinpoints=grid),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TURN.format(user="USER: ", image="<image>\n", end="\n", reply="ASSISTANT:"),
    )
    return save_folder(folder, transformers.LlavaNextForConditionalGeneration(config), processor)


def _idefics2(folder: Path) -> Path:
    tokenizer = tokenizer_of(["<image>", "<fake_token_around_image>", "<end_of_utterance>"], "</s>", bos=True)
    perceiver = {"resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 4, "resampler_head_dim": 8}
    config = transformers.Idefics2Config(
        text_config=text_sizes(tokenizer, model_type="mistral"),
        vision_config={**SIZES, "image_size": 56, "patch_size": 14},
        perceiver_config={"hidden_size": 32, "num_key_value_heads": 2, **perceiver},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    processor = transformers.Idefics2Processor(
        transformers.Idefics2ImageProcessorPil(size={"shortest_edge": 28, "longest_edge": 56}, do_image_splitting=True),
        tokenizer,
        image_seq_len=4,
        chat_template=TURN.format(user="User:", image="<image>", end="<end_of_utterance>\n", reply="Assistant:"),
    )
    return save_folder(folder, transformers.Idefics2ForConditionalGeneration(config), processor)


def _idefics3(folder: Path, kind: str = "Idefics3", made: Any = transformers.Idefics3Processor) -> Path:
    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokenizer = tokenizer_of(special, "<end_of_utterance>", bos=False)
    config = getattr(transformers, f"{kind}Config")(
        text_config=transformers.LlamaConfig(**text_sizes(tokenizer)),
        vision_config={**SIZES, "image_size": 56, "patch_size": 14},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    edges: dict[str, Any] = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
    processor = made(
        getattr(transformers, f"{kind}ImageProcessorPil")(**edges),
        tokenizer,
        image_seq_len=4,
        chat_template=TURN.format(user="<s>User:", image="<image>", end="<end_of_utterance>\n", reply="Assistant:"),
    )
    return save_folder(folder, getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor)


def _qwen(folder: Path, kind: str) -> Path:
    special = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = tokenizer_of(special, "<|im_end|>", bos=False)
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in
           (("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"),
            ("vision_end", "vision_end"))}  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
    vision: dict[str, Any] = {"depth": 2, "num_heads": 4, "patch_size": 14, "temporal_patch_size": 2}
    if kind == "Qwen2_5_VL":
        windows = {"window_size": 28, "fullatt_block_indexes": [1], "out_hidden_size": 32}
        vision |= {"hidden_size": 32, "intermediate_size": 64, **windows}
    else:
        vision |= {"embed_dim": 64, "hidden_size": 32, "mlp_ratio": 1}  # the tower's width and the LLM's
    config = getattr(transformers, f"{kind}Config")(
        text_config=text_sizes(tokenizer, rope_parameters=rope, tie_word_embeddings=True),
        vision_config=vision,
        tie_word_embeddings=True,
        **ids,
    )
    processor = images_and_text(getattr(transformers, f"{kind}Processor"))(
        transformers.Qwen2VLImageProcessorPil(
            patch_size=14, merge_size=2, size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
        ),
        tokenizer,
        chat_template=TURN.format(
            user="<|im_start|>user\n",
            image="<|vision_start|><|image_pad|><|vision_end|>",
            end="<|im_end|>\n",
            reply="<|im_start|>assistant\n",
        ),
    )
    return save_folder(folder, getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor)


def _gemma3(folder: Path) -> Path:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = tokenizer_of(["<start_of_turn>", *named.values()], "<end_of_turn>", bos=True, named=named)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>"]}, False)
    kinds = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3Config(
        text_config=text_sizes(tokenizer, head_dim=8, sliding_window=12, layer_types=kinds, tie_word_embeddings=True),
        vision_config={**SIZES, "image_size": 56, "patch_size": 14, "vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        tie_word_embeddings=True,
    )
    processor = transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessorPil(size={"height": 56, "width": 56}),
        tokenizer,
        image_seq_length=4,
        chat_template=TURN.format(
            user="<s><start_of_turn>user\n",
            image="<start_of_image>",
            end="<end_of_turn>\n",
            reply="<start_of_turn>model\n",
        ),
    )
    return save_folder(folder, transformers.Gemma3ForConditionalGeneration(config), processor)


def _paligemma(folder: Path) -> Path:
    """As published: without a chat template."""
    tokenizer = tokenizer_of(["<image>"], "<eos>", bos=False, named={"image_token": "<image>"})
    config = transformers.PaliGemmaConfig(
        vision_config=transformers.SiglipVisionConfig(**SIZES, image_size=56, patch_size=14, vision_use_head=False),
        text_config=transformers.GemmaConfig(**text_sizes(tokenizer, head_dim=8)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    pictures: Any = transformers.SiglipImageProcessorPil(size={"height": 56, "width": 56})
    pictures.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(pictures, tokenizer)
    return save_folder(folder, transformers.PaliGemmaForConditionalGeneration(config), processor)


def mllama() -> tuple[Any, Any]:
    """As published: the placeholder is behind all tokens that the model can write."""
    tokenizer = tokenizer_of(["<|start_header_id|>", "<|end_header_id|>"], "<|eot_id|>", bos=True)
    words = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]}, False)
    vision = {**SIZES, "num_global_layers": 1, "attention_heads": 4, "image_size": 56, "patch_size": 14}
    ratios = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]
    stages = {"vision_output_dim": 64, "max_num_tiles": 4, "intermediate_layers_indices": [0]}
    config = transformers.MllamaConfig(
        vision_config={**vision, **stages, "supported_aspect_ratios": ratios},
        text_config=text_sizes(tokenizer, vocab_size=words, num_hidden_layers=3, cross_attention_layers=[1]),
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    role, end = "<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>"
    turns = TURN.format(user=role.format("user"), image="<|image|>", end=end, reply=role.format("assistant"))
    processor = transformers.MllamaProcessor(
        transformers.MllamaImageProcessorPil(size={"height": 56, "width": 56}, max_image_tiles=4),
        tokenizer,
        chat_template=DATED.format(system=role.format("system"), end=end) + turns,
    )
    return transformers.MllamaForConditionalGeneration(config), processor


def _mllama(folder: Path) -> Path:
    return save_folder(folder, *mllama())


_MAKERS: dict[str, Callable[[Path], Path]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "idefics2": _idefics2,
    "idefics3": _idefics3,
    "smolvlm": lambda folder: _idefics3(folder, "SmolVLM", SmolVLMProcessor),
    "qwen2_vl": lambda folder: _qwen(folder, "Qwen2VL"),
    "qwen2_5_vl": lambda folder: _qwen(folder, "Qwen2_5_VL"),
    "gemma3": _gemma3,
    "paligemma": _paligemma,
    "mllama": _mllama,
}
FAMILIES = tuple(_MAKERS)


def family_folder(name: str, folder: Path) -> Path:
    """A tiny random model of a family, made under `folder`."""
    torch.manual_seed(0)
    return _MAKERS[name](folder / name)
