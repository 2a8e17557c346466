"""The work of a model: pictures encoded, tokens read and written, floating-point operations.

Counted, not timed, so that two ways of scoring can be compared on any machine.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from functools import wraps
from typing import Any

from torch import Size, Tensor, nn

from study.model.families import read_layers
from study.model.quantization import QuantizedLinear
from study.model.vlm import VLM


@dataclass
class ComputeCount:
    """The work done so far. Padding counts: it is computed like the rest."""

    images: int = 0
    """Pictures that went through the vision tower, counted every time."""
    prompt_tokens: int = 0
    """Tokens of forward passes that begin a sequence, including candidate answers."""
    generated_tokens: int = 0
    """Tokens of forward passes that continue from keys and values, one for each open reply."""
    flops: float = 0.0
    """Of linear layers, convolutions and attention (2 for a multiplication and addition); the rest is left out."""

    @classmethod
    def of(cls, parts: Sequence[ComputeCount]) -> ComputeCount:
        """The work of several processes together."""
        return cls(*(sum(amounts) for amounts in zip(*map(astuple, parts), strict=True)))

    @property
    def tokens(self) -> int:
        """All tokens that went through the language model."""
        return self.prompt_tokens + self.generated_tokens


@contextmanager
def counted(vlm: VLM) -> Iterator[ComputeCount]:
    """Count what the model does within the block, whoever calls it: our own scoring or transformers' `generate`."""
    work = ComputeCount()
    with ExitStack() as stack:

        def hook(module: nn.Module, count: Callable[..., None], *, before: bool = False) -> None:
            handle = (
                module.register_forward_pre_hook(count, with_kwargs=True)
                if before
                else module.register_forward_hook(count)
            )
            stack.callback(handle.remove)

        for module in vlm.model.modules():
            if isinstance(module, nn.Linear | QuantizedLinear):
                hook(module, _linear(work))
            elif isinstance(module, nn.Conv2d | nn.Conv3d):
                hook(module, _convolution(work))
        hook(vlm.model.get_submodule(vlm.prefixes["llm"]), _language(work, vlm), before=True)
        stack.enter_context(_pictures(work, vlm))
        yield work


def _linear(work: ComputeCount) -> Callable[..., None]:
    def count(module: nn.Linear | QuantizedLinear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        work.flops += 2.0 * inputs[0].numel() * module.out_features

    return count


def _convolution(work: ComputeCount) -> Callable[..., None]:
    def count(module: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        work.flops += 2.0 * output.numel() * module.weight[0].numel()

    return count


def _language(work: ComputeCount, vlm: VLM) -> Callable[..., None]:
    """A hook before the language model: tokens, and the two products of attention over all keys of every layer."""
    config = vlm.model.config.get_text_config()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get("inputs_embeds")
        rows, length = (given if given is not None else kwargs["input_ids"]).shape[:2]
        cache = kwargs.get("past_key_values")
        before = int(cache.get_seq_length()) if cache is not None else 0
        if before:
            work.generated_tokens += rows * length
        else:
            work.prompt_tokens += rows * length
        work.flops += 4.0 * config.num_hidden_layers * width * rows * length * (before + length)

    return count


@contextmanager
def _pictures(work: ComputeCount, vlm: VLM) -> Iterator[None]:
    """Count the pictures that the model asks its tower for, and the attention among the tokens of each."""
    inner: Any = vlm.model.model
    asked, signature = inner.get_image_features, inspect.signature(inner.get_image_features)
    shapes: list[Size] = []
    tower = vlm.model.get_submodule(vlm.prefixes["vision"])
    layers = len(read_layers(tower, vlm.model.config))

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        shapes.append((output if isinstance(output, Tensor) else output[0]).shape)

    @wraps(asked)
    def features(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        grid = given.get("image_grid_thw")
        count = len(given["pixel_values"] if grid is None else grid)
        out = asked(*args, **kwargs)
        work.images += count
        while shapes:  # numbers are tokens x width, so this is layers x 4 x tokens of a picture x tokens x width
            shape = shapes.pop()
            work.flops += 4.0 * layers * shape.numel() * (shape.numel() / count / shape[-1])
        return out

    handle = tower.register_forward_hook(see)
    inner.get_image_features = features
    try:
        yield
    finally:
        del inner.get_image_features
        handle.remove()
