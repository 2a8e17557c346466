"""The neurons of a model's MLPs: where they are in any family, what they say, and how they die.

A neuron is one entry of what an MLP's last linear layer reads: after the activation and, where there is one, the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from study.core.terms import Part
from study.engine.sharded_tensors import zero_
from study.model.packing import Batch
from study.model.vlm import VLM


@dataclass(frozen=True, eq=False)
class MLP:
    """Linear layers into and out of neurons, which are the rows of `reads` and the columns of `writes`."""

    name: str
    part: Part
    reads: tuple[nn.Linear, ...]
    writes: nn.Linear

    @property
    def width(self) -> int:
        """How many neurons there are."""
        return self.writes.in_features

    def kill(self, neurons: Tensor) -> None:
        """Set to 0 all weights into and out of some neurons: as if they had been taken out of the architecture.

        Training does not bring them back either: a weight on one side gets no gradient while the other side is 0.
        """
        for layer in self.reads:
            zero_(layer.weight, neurons)
            if layer.bias is not None:
                zero_(layer.bias, neurons)
        zero_(self.writes.weight, (slice(None), neurons))


def mlps(vlm: VLM, part: Part) -> list[MLP]:
    """The MLPs of a part, in the order of its layers, but for those whose output the model does not read.

    Raises `ValueError` if there is none.
    """
    read = vlm.trainable((part,))
    found = []
    for name, module in vlm.model.named_modules():
        for reads, writes in vlm.family.neurons:
            layers = [getattr(module, layer, None) for layer in (*reads, writes)]
            linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
            if len(linear) == len(layers) and f"{name}.{writes}.weight" in read:
                found.append(MLP(name, part, tuple(linear[:-1]), linear[-1]))
    if not found:
        names = ", ".join("/".join((*reads, writes)) for reads, writes in vlm.family.neurons)
        raise ValueError(f"{part} has no MLP with neurons (looked for the layers {names}): leave {part} out")
    return found


@contextmanager
def listening(chosen: Sequence[MLP], hear: Callable[[int, Tensor], None]) -> Iterator[None]:
    """While the block lasts, call `hear(i, z)` with the activations of `chosen[i]`, neurons last, at every pass."""

    def hook(i: int) -> Callable[[Any, tuple[Tensor, ...]], None]:
        return lambda _module, inputs: hear(i, inputs[0])

    hooks = [mlp.writes.register_forward_pre_hook(hook(i)) for i, mlp in enumerate(chosen)]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def tokens(batch: Batch) -> Tensor:
    """Which places of a packed batch hold a token, (B, L) bool: prompts, pictures and answers, and no padding.

    Padding comes last in a row and sees itself alone; the last token of an answer sees more than that.
    """
    seeing = batch.attention_mask[:, 0].sum(-1) > 1
    return seeing.flip(1).cumsum(1).flip(1) > 0
