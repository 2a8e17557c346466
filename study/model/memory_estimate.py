"""The memory that a model needs in each kind of training: calculated from its shapes, not measured.

Weights, gradients and AdamW's two moments are counted exactly. Activations are those that the backward pass keeps under
memory-efficient attention, in numbers per token and layer: of a gated LLM of width d and MLP width f that is trained
5d + 4f, that gradients only pass through 3d + 3f; of a vision layer 8d + 2f. For LLaVA-1.5-7B in bfloat16 these give
2.8 GB and 2.0 GB for 672 tokens and 0.45 GB for a picture. What is kept in float32 besides (norms, softmax) is covered
by `HEADROOM`. Adapters are float32 on any model, and so is the copy that each keeps of its layer's input, together
6d + f, or 3.1 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from study.core.terms import PARTS, Part, Quantized
from study.model.families import USUAL_PATCH, number, read_layers, vision_config
from study.model.loading import Loading, without_weights
from study.model.quantization import code_bytes
from study.model.vlm import VLM

GIB = 2**30
RANK = 16
"""Of the adapters that are counted: that of the published schedules."""
TEXT = 96
"""Tokens of a question with its answer, a generous estimate for MLLMU-Bench."""
ANSWER = 32
"""Of these, the tokens whose logits are computed, in float32 and with two copies."""
HEADROOM = 1.5
"""Factor on the counted activations, for float32 intermediates and fragmentation; an estimate, not measured."""
FLOAT32 = 4
"""Bytes of a number that is kept in float32 whatever the model is in."""
DECODED = 1 + 4 + 4 + 2
"""Maximum bytes per quantized weight while its layer runs: unpacked, as an index, in float32 and in bfloat16."""


@dataclass(frozen=True)
class Shape:
    """What the memory of a model depends on; sizes in numbers, not bytes."""

    itemsize: int
    """Bytes of a number."""
    parameters: Mapping[Part, int]
    trainable: Mapping[Part, int]
    """Parameters that gradients reach."""
    adapters: int
    """Parameters of adapters on every linear layer of projector and LLM."""
    adapter_inputs: int
    """What they keep of a question with its picture: the input of each."""
    llm_trained: int
    """Activations of a question with its picture, if the LLM or its adapters are trained."""
    llm_passed: int
    """The same, if gradients pass through a frozen LLM."""
    vision: int
    """Activations of a picture in a vision tower that is trained."""
    logits: int
    spared: int = 0
    """Bytes that quantization saves once learning is over; 0 if the LLM is not quantized."""
    decoded: int = 0
    """Bytes of the largest quantized layer, dequantized while it runs."""

    @property
    def weights(self) -> int:
        """Bytes of the weights while the model is taught."""
        return self.itemsize * sum(self.parameters.values())


@dataclass(frozen=True)
class Estimate:
    """What one kind of training takes, in bytes."""

    kind: str
    weights: int
    states: int
    """Gradients and AdamW's moments, and the adapters themselves."""
    copies: int
    """Copies of weights: teachers, and of a quantized LLM one dequantized layer. What is put back after a trial is read
    from its file."""
    picture: int
    """Activations of a picture with one question, with headroom."""

    def batch(self, memory: float) -> int:
        """The most pictures per step that fit into so many bytes; 0 if not even one does."""
        return max(0, int((memory - self.weights - self.states - self.copies) // self.picture))


def shape(vlm: VLM, quantized: Quantized = "") -> Shape:
    """Count a model that is to be loaded `quantized`; it needs no weights."""
    parameters = dict.fromkeys(PARTS, 0)
    for name, parameter in vlm.model.named_parameters():
        parameters[vlm.part_of(name)] += parameter.numel()
    text, vision = vlm.model.config.get_text_config(), vision_config(vlm.model.config)
    d, f = vlm.family.text_widths(text)
    tokens = (vlm.image_tokens + TEXT) * text.num_hidden_layers
    width, inner = vlm.family.widths(vision)
    layers = len(read_layers(vlm.model.get_submodule(vlm.prefixes["vision"]), vlm.model.config))
    adapted = list(vlm.linear(("projector", "llm")).values())
    coded = {layer: code_bytes(layer, quantized) for layer in vlm.linear(("llm",)).values()} if quantized else {}
    size = vlm.model.dtype.itemsize
    return Shape(
        itemsize=size,
        parameters=parameters,
        trainable={part: sum(p.numel() for p in vlm.trainable([part]).values()) for part in PARTS},
        adapters=RANK * sum(layer.in_features + layer.out_features for layer in adapted),
        adapter_inputs=(vlm.image_tokens + TEXT) * sum(layer.in_features for layer in adapted),
        llm_trained=tokens * (5 * d + 4 * f),
        llm_passed=tokens * (3 * d + 3 * f),
        vision=(vlm.side // number(getattr(vision, "patch_size", USUAL_PATCH))) ** 2 * layers * (8 * width + 2 * inner),
        logits=3 * ANSWER * vlm.vocabulary,
        spared=sum(size * layer.weight.numel() - codes for layer, codes in coded.items()),
        decoded=DECODED * max((layer.weight.numel() for layer in coded), default=0),
    )


def estimates(shape: Shape) -> list[Estimate]:
    """Every kind of training that a study does: with a quantized LLM, after learning, that of the visual module alone.

    What a trial puts back it reads from the learned model's file, of which all processes of a machine share the pages.
    """
    size, whole = shape.itemsize, shape.weights
    seen = shape.trainable["vision"] + shape.trainable["projector"]
    every = seen + shape.trainable["llm"]
    logits = FLOAT32 * shape.logits
    adapted = FLOAT32 * shape.adapter_inputs + logits

    def of(kind: str, states: int, copies: int, activations: int, more: int = 0) -> Estimate:
        held = whole if kind.startswith("learn") else whole - shape.spared
        return Estimate(kind, held, states, copies, int(HEADROOM * size * activations) + more)

    copies = size * seen + shape.decoded
    learn = of(f"learn: adapters of rank {RANK}", FLOAT32 * 4 * shape.adapters, 0, shape.llm_trained, adapted)
    visual = [
        of("unlearn: visual module, features only", size * 3 * seen, copies, shape.vision),
        of("unlearn: visual module, loss on answers", size * 3 * seen, copies, shape.vision + shape.llm_passed, logits),
    ]
    if shape.decoded:
        return [learn, *visual]
    return [
        learn,
        of(f"unlearn: adapters of rank {RANK}", FLOAT32 * 4 * shape.adapters, 0, shape.llm_trained, adapted),
        *visual,
        of("unlearn: all weights", size * 3 * every, 0, shape.vision + shape.llm_trained, logits),
        of(
            "unlearn: all weights, with a copy as reference",
            size * 3 * every,
            whole,
            shape.vision + shape.llm_trained,
            logits,
        ),
    ]


def describe(folder: Path, loading: Loading) -> str:
    """What each kind of training of the model in a Hugging Face folder takes with one picture per step, in words."""
    found = estimates(shape(without_weights(folder, loading), loading.quantized))
    return "; ".join(f"{e.kind} {(e.weights + e.states + e.copies + e.picture) / GIB:.2f} GiB" for e in found)
