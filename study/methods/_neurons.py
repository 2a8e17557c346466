"""The neurons of a model's MLPs: where they are in any family, what they say, and how they die.

A neuron is one entry of what an MLP's last linear layer reads: after the activation and, where there is one, the gate.
Some code takes for one what any linear layer of an MLP puts out, before an activation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from study.core.errors import Refused
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
    layers: tuple[str, ...]
    """The names of these layers in the model, that of `writes` last."""

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

    def rows(self) -> tuple[Outputs, ...]:
        """Its linear layers, each with neurons of its own."""
        layers = (*self.reads, self.writes)
        return tuple(Outputs(name, self.part, layer) for name, layer in zip(self.layers, layers, strict=True))

    def listened(self, hear: Callable[[Tensor], None]) -> RemovableHandle:
        """Call `hear(z)` with the activations at every pass, until the handle is removed."""
        return self.writes.register_forward_pre_hook(lambda _module, inputs: hear(inputs[0]))


@dataclass(frozen=True, eq=False)
class Outputs:
    """A linear layer whose neurons are what it puts out: the rows of its weight."""

    name: str
    part: Part
    layer: nn.Linear

    @property
    def width(self) -> int:
        """How many there are."""
        return self.layer.out_features

    def kill(self, neurons: Tensor) -> None:
        """Set to 0 their rows and biases. What the next layer reads of them stays."""
        zero_(self.layer.weight, neurons)
        if self.layer.bias is not None:
            zero_(self.layer.bias, neurons)

    def listened(self, hear: Callable[[Tensor], None]) -> RemovableHandle:
        """Call `hear(z)` with what it puts out at every pass, until the handle is removed."""
        return self.layer.register_forward_hook(lambda _module, _inputs, output: hear(output))


Neurons = MLP | Outputs


def mlps(vlm: VLM, *parts: Part) -> list[MLP]:
    """The MLPs of some parts, in the order of the layers, but for those whose output the model does not read.

    Raises `Refused` if there is none.
    """
    read = vlm.trainable(parts)
    found = []
    for name, module in vlm.model.named_modules():
        for reads, writes in vlm.family.neurons:
            layers = tuple(f"{name}.{layer}" for layer in (*reads, writes))
            linear = [getattr(module, layer, None) for layer in (*reads, writes)]
            there = [layer for layer in linear if isinstance(layer, nn.Linear)]
            if len(there) == len(layers) and f"{layers[-1]}.weight" in read:
                found.append(MLP(name, vlm.part_of(f"{layers[-1]}.weight"), tuple(there[:-1]), there[-1], layers))
    if not found:
        names = ", ".join("/".join((*reads, writes)) for reads, writes in vlm.family.neurons)
        asked = " and ".join(parts)
        raise Refused(f"{asked} has no MLP with neurons (looked for the layers {names}): leave {asked} out")
    return found


@contextmanager
def listening(chosen: Sequence[Neurons], hear: Callable[[int, Tensor], None]) -> Iterator[None]:
    """While the block lasts, call `hear(i, z)` with the activations of `chosen[i]`, neurons last, at every pass."""
    hooks = [each.listened(partial(hear, i)) for i, each in enumerate(chosen)]
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
