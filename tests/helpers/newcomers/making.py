"""What the tiny models of newcomers are made of: tokens, sizes, templates and stock processors."""

from __future__ import annotations

from typing import Any

import transformers

from study.model.families._images_and_text import images_and_text
from tests.helpers.families import SIZES, TURN, tokenizer_of

hf: Any = transformers  # its classes are many, and typed as their configurations are, not as they are called
Made = tuple[Any, Any]
"""A model and its processor."""
GRID = [[56, 112], [112, 56], [112, 112]]
SIDE = {"height": 56, "width": 56}
AREAS = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}


def given(**values: Any) -> dict[str, Any]:
    return values


TOWER = given(**SIZES, image_size=56, patch_size=14)
MROPE = given(rope_type="default", rope_theta=10_000.0, mrope_section=[1, 1, 2])
CHATML = given(user="<|im_start|>user\n", end="<|im_end|>\n", reply="<|im_start|>assistant\n")


def chatml(image: str) -> str:
    return TURN.format(image=image, **CHATML)


def spoken(
    special: list[str], end: str = "<|im_end|>", *, named: dict[str, str] | None = None, bos: bool = False
) -> Any:
    """A tokenizer whose special tokens are single ones, those that `named` calls by an attribute included."""
    tokenizer = tokenizer_of(["<|im_start|>", *special], end, bos=bos, named=named)
    if named:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *special]}, False)
    return tokenizer


def ids(tokenizer: Any, **names: str) -> dict[str, Any]:
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def pictures(kind: str, **settings: Any) -> Any:
    """The image processor of a kind, without torchvision where it has such a form."""
    pil = getattr(hf, f"{kind}ImageProcessorPil", None)
    return (pil or getattr(hf, f"{kind}ImageProcessor"))(**settings)


def processor(kind: str, *parts: Any, **settings: Any) -> Any:
    """The stock processor, without videos and audio; `_add_video` writes down what a published folder has."""
    stock = getattr(hf, f"{kind}Processor")
    names = [name for name in stock.get_attributes() if "image" in name or "tokenizer" in name]
    absent = dict.fromkeys(set(stock.get_attributes()) - set(names))
    return images_and_text(stock)(**dict(zip(names, parts, strict=True)), **absent, **settings)
