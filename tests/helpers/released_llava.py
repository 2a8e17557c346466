"""A tiny LLaVA that is like llava-hf/llava-1.5-7b-hf in all but its size: tokenizer, chat template, configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, trainers

from study.data.benchmark import Benchmark, Lesson
from study.model.likelihood import cross_entropy
from study.model.packing import pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule

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
SIDE, PATCH = 28, 14
"""Of a picture and of its patches, in pixels: four patches and the tower's own token, which the projector drops."""
PIECES = 700
"""Size of the vocabulary before image and padding token: 256 bytes, and pieces of what the benchmark says."""
ROUND = 32
"""The embedding has more rows than there are tokens: the released model has 32,064 for 32,002."""


def released_llava(folder: Path, benchmark: Benchmark, lessons: Sequence[Lesson]) -> Path:
    """The folder of a model that has learned these lessons and was never taught anything else.

    Its tokenizer was trained on what the benchmark says.
    """
    vlm = untaught_llava(_texts(benchmark))
    _teach(vlm, lessons)
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


def untaught_llava(texts: Iterable[str]) -> VLM:
    """Such a model with random weights and a tokenizer that was trained on these."""
    torch.manual_seed(0)
    tokenizer = llama_tokenizer(texts)
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    model = transformers.LlavaForConditionalGeneration(_config(tokenizer))
    with torch.no_grad():  # as initialized, the answers of so small a model hardly depend on what it sees
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.15)
    return VLM(model, processor)


def _texts(benchmark: Benchmark) -> Iterator[str]:
    for split in benchmark.splits.values():
        for lesson in split.lessons:
            yield from (lesson.prompt, lesson.answer)
        for question in split.questions:
            yield from (question.prompt, question.answer, *question.options)


def _config(tokenizer: Any) -> transformers.LlavaConfig:
    image, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<image>", "<pad>"))
    layers: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    rows = -(-len(tokenizer) // ROUND) * ROUND
    return transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            **layers, num_hidden_layers=3, image_size=SIDE, patch_size=PATCH, projection_dim=32
        ),
        text_config=transformers.LlamaConfig(
            **layers, num_hidden_layers=2, vocab_size=rows, max_position_embeddings=4096, pad_token_id=pad
        ),
        image_token_index=image,
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def _teach(vlm: VLM, lessons: Sequence[Lesson]) -> None:
    """Before anything is studied: what a public model knows of its language and of some people."""
    schedule = Schedule(
        steps=100, learning_rate=1e-2, pictures=8, lessons_per_picture=6, texts=4, warmup=5, beta2=0.98
    )  # chosen by trial
    drawn = Lessons(tuple(lessons), schedule, 0)

    def loss(step: int) -> torch.Tensor:
        groups = drawn.draw()
        shown, told = ([g for g in groups if (g.picture is None) == text] for text in (False, True))
        return cross_entropy(vlm, pack(vlm, shown)) + cross_entropy(vlm, pack(vlm, told))

    train(vlm, ("vision", "projector", "llm"), schedule, loss)


def llama_tokenizer(texts: Iterable[str]) -> Any:
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
