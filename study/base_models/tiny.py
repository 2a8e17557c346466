"""The embedded base model: a real, 0.6 M parameter LLaVA that reads any text and whose eyes were trained on strangers.

Its language model is random and knows nobody. Its vision tower is pretrained to tell generated faces apart (what
they look like, and which of some hundred strangers they are), so it can stand for a public encoder: none of those
faces is ever one of a study's people (`study.data.synthetic_faces.is_public`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from study.contracts import BaseModel
from study.core.files import written_folder
from study.core.hashing import content_key
from study.core.terms import Part
from study.data.synthetic_faces import FACTORS, Face, distinct_faces, draw, random_face, test_view, train_view
from study.data.synthetic_language import openings, words

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

RECIPE = 2  # raise it whenever the same fields make another model: folders of older recipes are then left alone
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} "
    "{% else %}ASSISTANT: {% for part in message['content'] %}{{ part['text'] }}{% endfor %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""The prompts of the released LLaVA-1.5; the end of an answer is its own token."""


@dataclass(frozen=True)
class Tiny(BaseModel):
    """A `LlavaForConditionalGeneration` folder made from a seed."""

    seed: int = 0
    width: int = 96
    """Hidden size of the vision tower and of the language model."""
    layers: int = 3
    """Layers of the vision tower and of the language model."""
    size: int = 48
    """Side of a picture in pixels."""
    patch: int = 12
    """Side of a patch in pixels."""
    steps: int = 600
    """Pretraining steps of the vision tower; 0 leaves it random."""
    strangers: int = 300
    """Identities that the tower learns to tell apart."""

    def __post_init__(self) -> None:
        for name, least in (("layers", 1), ("size", 1), ("patch", 1), ("steps", 0), ("strangers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: use at least {least}")
        if self.size % self.patch:
            raise ValueError(f"size={self.size} is not a multiple of patch={self.patch}")
        if self.width % 4 or self.width < 4:
            raise ValueError(f"width={self.width}: use a multiple of 4 (there are 4 attention heads)")

    @property
    def parameters(self) -> Mapping[Part, int]:
        """Those of the parts, from the shapes of a CLIP tower, a two-layer projector and a Llama with a tied head."""
        w, patches = self.width, (self.size // self.patch) ** 2
        square, mlp, norm = w * w + w, (2 * w * w + 2 * w) + (2 * w * w + w), 2 * w
        seen = w + 3 * self.patch**2 * w + (patches + 1) * w + 2 * norm + self.layers * (4 * square + mlp + 2 * norm)
        llm = w * len(_vocabulary()) + w + self.layers * (4 * w * w + 6 * w * w + 2 * w)
        return {"vision": seen, "projector": 2 * square, "llm": llm}

    @property
    def recipe(self) -> int:
        """Of this version of the code."""
        return RECIPE

    @property
    def special_tokens(self) -> frozenset[str]:
        """Those of its word list."""
        return frozenset(_SPECIAL)

    def __call__(self, folder: Path) -> Path:
        """The Hugging Face folder, made first if it is not there; it appears whole or not at all."""
        made = folder / f"tiny-{content_key({'fields': self, 'recipe': self.recipe})}"
        if not made.exists():
            with written_folder(made) as draft:  # if another process is faster, the seed makes its folder the same
                torch.manual_seed(self.seed)
                processor = self._processor()
                model = self._model(processor)
                if self.steps:
                    self._pretrain(model.model.vision_tower, processor)
                model.save_pretrained(draft)
                processor.save_pretrained(draft)
        return made

    def _processor(self) -> LlavaProcessor:
        from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

        side = {"height": self.size, "width": self.size}
        return LlavaProcessor(
            CLIPImageProcessorPil(
                size=side, crop_size=side, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
            ),
            PreTrainedTokenizerFast(
                tokenizer_object=_tokenizer(),
                bos_token="<s>",
                eos_token="</s>",
                pad_token="<pad>",
                unk_token="<unk>",
                extra_special_tokens={"image_token": "<image>"},
                padding_side="left",
                clean_up_tokenization_spaces=False,
            ),
            patch_size=self.patch,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=_TEMPLATE,
        )

    def _model(self, processor: LlavaProcessor) -> LlavaForConditionalGeneration:
        from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

        tokenizer = processor.tokenizer
        vision = CLIPVisionConfig(
            hidden_size=self.width,
            intermediate_size=2 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=4,
            image_size=self.size,
            patch_size=self.patch,
            projection_dim=self.width,
        )
        text = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.width,
            intermediate_size=2 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,  # what is written in bytes is long
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
        config = LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=(self.size // self.patch) ** 2,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
        )
        return LlavaForConditionalGeneration(config)

    def _pretrain(self, tower: nn.Module, processor: LlavaProcessor) -> None:
        """Teach the tower to name the factors of random faces and to tell strangers apart."""
        rng, noise = random.Random(f"tower {self.seed}"), np.random.default_rng(self.seed)
        strangers = distinct_faces(self.strangers, self.seed, 2, public=True)
        heads = nn.ModuleDict({factor: nn.Linear(self.width, len(values)) for factor, values in FACTORS.items()})
        identity = nn.Linear(self.width, len(strangers))
        weights = [*tower.parameters(), *heads.parameters(), *identity.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=self.steps, pct_start=0.15)
        for _ in range(self.steps):
            faces = [random_face(rng, public=True) for _ in range(48)]
            known = [rng.randrange(len(strangers)) for _ in range(48)]
            pixels = self._pixels(processor, [*faces, *(strangers[i] for i in known)], rng, noise)
            seen = tower(pixels).last_hidden_state[:, 1:].mean(1)
            loss = 2 * cross_entropy(identity(seen[48:]), torch.tensor(known))
            for factor, values in FACTORS.items():
                target = torch.tensor([values.index(getattr(face, factor)) for face in faces])
                loss = loss + cross_entropy(heads[factor](seen[:48]), target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()

    def _pixels(
        self, processor: LlavaProcessor, faces: Sequence[Face], rng: random.Random, noise: np.random.Generator
    ) -> Tensor:
        pictures: list[Image.Image] = []
        for face in faces:
            view = train_view(rng) if rng.random() < 0.5 else test_view(rng)
            pictures.append(draw(face, view, self.size, noise))
        pixels: Tensor = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        return pixels


def _tokenizer() -> Tokenizer:
    """A token for each word of the synthetic language, and bytes for whatever else is written, as in Llama's."""
    vocabulary = [(token, -1.0) for token in _vocabulary()]  # equal scores: a word goes before its parts
    found = Tokenizer(models.Unigram(vocabulary, _SPECIAL.index("<unk>"), byte_fallback=True))
    found.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return found


def _vocabulary() -> list[str]:
    """Every token, by its number: words begin with the space before them, but for what may follow a newline."""
    spoken = {*words(), "USER", "ASSISTANT"}
    marks = {".", ":", "?"}
    found = {"USER", " ", *marks, *openings(), *(f" {word}" for word in spoken - marks)}
    return [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(found)]
