"""The work of a model: pictures encoded, tokens read and written, passes, floating-point operations.

Counted, not timed, so that methods and ways of scoring can be compared on any machine. Everything that runs in this
process counts: the model itself, copies of it, teachers and references of its class, adapters put into it.

What is counted are the products of linear layers, convolutions and attention, 2 operations for a multiplication and
addition; norms, activations, embeddings, losses, optimizer steps and the merging of adapters are left out.

- **Forward.** Each time that it runs. What activation checkpointing or a forward in chunks runs again in the backward
  pass counts again, up to the last tensor that is needed.
- **Backward.** When it runs, and only what it computes: for a layer one product as large as the forward's for the
  gradient of its input, if something before it is trained, and one for that of its weights, if they are. So a
  part that is trained takes three times its forward, and its first layer two (a picture has no gradient).
- **Frozen parts** that the gradient goes through take two times their forward. Those before all that is trained take
  one, and so do teachers and references.
- **Masks** come after the gradient: a masked weight costs as much as without a mask.
- **LoRA.** The adapted layers are frozen ones; the two narrow products of an adapter are trained ones.
- **Attention** has two products, and four in the backward pass; what a fused kernel computes again is not counted.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

from torch import Tensor, nn

from study.core.terms import PARTS, Part
from study.model.families import inner
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
    """Tokens of forward passes that continue from keys and values: one for each open reply, and what follows examples
    that were computed before."""
    flops: float = 0.0
    """Floating-point operations, forward and backward."""
    passes: Counter[tuple[Part, bool]] = field(default_factory=Counter)
    """Forward passes of each part, without and with a gradient that goes back through it."""

    @classmethod
    def of(cls, counts: Sequence[ComputeCount]) -> ComputeCount:
        """The work of several processes together."""
        total = cls()
        for count in counts:
            total.images += count.images
            total.prompt_tokens += count.prompt_tokens
            total.generated_tokens += count.generated_tokens
            total.flops += count.flops
            total.passes += count.passes
        return total

    def without(self, part: ComputeCount) -> ComputeCount:
        """This work but for a part of it that was counted by itself."""
        rest = {name: amount - part.amounts()[name] for name, amount in self.amounts().items()}
        return ComputeCount(**rest, passes=self.passes - part.passes)  # type: ignore[arg-type]  # whole numbers stay so

    @property
    def tokens(self) -> int:
        """All tokens that went through the language model."""
        return self.prompt_tokens + self.generated_tokens

    def passes_of(self, part: Part) -> int:
        """All forward passes of a part."""
        return self.passes[part, False] + self.passes[part, True]

    def amounts(self) -> dict[str, float]:
        """The entries of a record: all but the passes."""
        names = ("images", "prompt_tokens", "generated_tokens", "flops")
        return {name: getattr(self, name) for name in names}


@contextmanager
def counted(vlm: VLM) -> Iterator[ComputeCount]:
    """Count the work of models of `vlm`'s class within the block, whether a loss or `generate` calls them."""
    from transformers.modeling_utils import AttentionInterface

    count = ComputeCount()
    with ExitStack() as stack:

        def wrap(owner: type, name: str, counting: Callable[..., Any]) -> None:
            stack.enter_context(_wrapped(owner, name, partial(counting, count)))

        for part in PARTS:
            module = vlm.model.get_submodule(vlm.prefixes[part])
            kin = sum(isinstance(other, type(module)) for other in vlm.model.modules())
            only = module if kin > 1 else None
            wrap(type(module), "forward", partial(_counting_part, part, only))
        for layer in (nn.Linear, QuantizedLinear, nn.Conv2d, nn.Conv3d):
            wrap(layer, "forward", _counting_layer)
        wrap(AttentionInterface, "get_interface", _counting_attention)
        if vlm.across:  # the model's own pass asks the tower itself
            wrap(type(vlm.model.get_submodule(vlm.prefixes["vision"])), "forward", _counting_images)
        else:
            wrap(type(inner(vlm.model)), "get_image_features", _counting_images)
        yield count


@contextmanager
def _wrapped(owner: type, name: str, wrapper: Callable[[Any], Any]) -> Iterator[None]:
    """Within the block, a method of a class is wrapped by `wrapper`.

    Hooks on all modules would slow down each of them, and hooks on those of one model miss teachers and adapters.
    """
    method = getattr(owner, name)
    setattr(owner, name, wraps(method)(wrapper(method)))
    try:
        yield
    finally:
        setattr(owner, name, method)


def _counting_part(
    part: Part, only: nn.Module | None, count: ComputeCount, run: Callable[..., Any]
) -> Callable[..., Any]:
    """Passes of a class; if the model has other modules of it (a projector that is one linear layer), of `only` one.

    Those of copies and teachers are then not told from these others, and left out.
    """

    def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        output = run(module, *args, **kwargs)
        if only is not None and module is not only:
            return output
        count.passes[part, _has_gradient(output)] += 1
        if part == "llm":
            _count_tokens(count, output.last_hidden_state, kwargs.get("past_key_values"))
        return output

    return forward


def _has_gradient(output: Any) -> bool:
    parts = [output] if isinstance(output, Tensor) else output if isinstance(output, tuple | list) else output.values()
    return any(isinstance(part, Tensor) and part.requires_grad for part in parts)


def _count_tokens(count: ComputeCount, hidden: Tensor, cache: Any) -> None:
    rows, length = hidden.shape[:2]
    if cache is not None and cache.get_seq_length() > length:  # by now these tokens are in it too
        count.generated_tokens += rows * length
    else:
        count.prompt_tokens += rows * length


def _counting_layer(count: ComputeCount, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A layer that is one product of its input and its weight: the gradient of each costs as much again."""

    def forward(layer: Any, given: Tensor) -> Tensor:
        output = run(layer, given)
        flops = 2.0 * _multiplications(layer, given, output)
        count.flops += flops
        if output.requires_grad:
            trained = not isinstance(layer, QuantizedLinear) and layer.weight.requires_grad
            _count_backward(count, (given.requires_grad + trained) * flops, output)
        return output

    return forward


def _multiplications(layer: Any, given: Tensor, output: Tensor) -> int:
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        return output.numel() * layer.weight[0].numel()
    return given.numel() * int(layer.out_features)


def _count_backward(count: ComputeCount, flops: float, output: Tensor) -> None:
    """Add the work of the backward pass of an output when it gets there."""

    def add(_: object) -> None:
        count.flops += flops

    node: Any = output.grad_fn
    node.register_prehook(add)  # half the cost of the tensor's own hook


def _counting_attention(count: ComputeCount, find: Callable[..., Any]) -> Callable[..., Any]:
    """The lookup of attention functions: every layer of transformers finds its own here."""

    def counting(attend: Callable[..., Any]) -> Callable[..., Any]:
        def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
            output, weights = attend(module, query, key, value, *args, **kwargs)
            scores, mixture = (2.0 * tensor.numel() * key.shape[-2] for tensor in (query, output))
            count.flops += scores + mixture
            if output.requires_grad:
                asked = query.requires_grad + key.requires_grad
                _count_backward(count, asked * scores + (bool(asked) + value.requires_grad) * mixture, output)
            return output, weights

        return attention

    return lambda *args, **kwargs: counting(find(*args, **kwargs))


def _counting_images(count: ComputeCount, encode: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(encode)

    def features(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        told = [value for name, value in given.items() if name != "pixel_values" and isinstance(value, Tensor)]
        those = told[0] if told else given["pixel_values"]  # these may be patches of all in one row
        count.images += those.numel() if "aspect_ratio_ids" in given else len(those)  # of Mllama, one for each picture
        return encode(*args, **kwargs)

    return features
