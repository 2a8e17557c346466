"""The memory that a model needs in each kind of work: calculated from its shapes, not measured.

Weights, copies of them, gradients, master weights, masks and AdamW's two moments are counted exactly. Activations are
those that the backward pass keeps under memory-efficient attention, in numbers per token and layer: of a gated LLM of
width d and MLP width f that is trained 5d + 4f, that gradients only pass through 3d + 3f; of a vision layer 8d + 2f.
For LLaVA-1.5-7B in bfloat16 these give 2.8 GB and 2.0 GB for 672 tokens and 0.45 GB for a picture. What is kept in
float32 besides (norms, softmax) is covered by `HEADROOM`. Adapters are float32 on any model, and so is the copy that
each keeps of its layer's input, together 6d + f, or 3.1 GB.

The batch is that of the 7B presets unless another is named. A row is a picture with its questions; a loss on what is
forgotten and on what is retained has a row of each for every picture of a step, and a distance of features compares
more pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from study.core.terms import PARTS, Held, Part, Quantized
from study.model.families import patch_side, read_layers, vision_config
from study.model.loading import Loading, without_weights
from study.model.packing import TOKENS_PER_BATCH
from study.model.quantization import code_bytes
from study.model.vision import FEATURE_BYTES
from study.model.vlm import VLM

GIB = 2**30
RANK = 16
"""Of the adapters that are counted: that of the published schedules."""
PICTURES, QUESTIONS = 4, 1
"""Of a step: those of the published schedules, which the 7B presets have."""
TEXT = 96
"""Tokens of a question with its answer, a generous estimate for MLLMU-Bench."""
ANSWER = 32
"""Of these, the tokens whose logits are computed, in float32 and with two copies."""
ASKED = 18
"""Questions about a picture that are scored in one row: about what MLLMU-Bench asks."""
ACROSS = 3
"""Numbers that a layer which attends across keeps of a token of a picture, in widths of the LLM: its key and its value,
of all heads, and before those of a group are repeated."""
HEADROOM = 1.5
"""Factor on the counted activations, for float32 intermediates and fragmentation; an estimate, not measured."""
RESERVED = 1.5 * GIB
"""Of a GPU's memory, what the driver, its libraries' workspaces and the processor's pictures take: an estimate."""
FLOAT32, BFLOAT16 = 4, 2
"""Bytes of a number: float32 is what masks and adapters are kept in whatever the model is in."""
TRAINED = {FLOAT32: 3 * FLOAT32, BFLOAT16: 4 * FLOAT32 + BFLOAT16}
"""Bytes that a trained number takes beside itself, by those it has: gradient and AdamW's moments, and in bfloat16 a
master weight and the gradient before it is made float32."""
DECODED = 1 + 4 + 4 + 2
"""Maximum bytes per quantized weight while its layer runs: unpacked, as an index, in float32 and in bfloat16."""
SALIENCY_PICTURES, SALIENCY_QUESTIONS = 8, 8
"""Of a batch from which masks are made (`study/methods/_saliency.py`)."""
KEPT_PICTURES = 2
"""Retain pictures for every forget picture of VKD's distances."""
LEARN = f"learn: adapters of rank {RANK}"
ADAPTERS = f"unlearn: adapters of rank {RANK}"
VISUAL: Mapping[Held, str] = {
    "features": "unlearn: visual module, features only",
    "nothing": "unlearn: visual module, loss on answers",
}
"""Kinds of training of the visual module alone. The loss on answers is counted with copies and a mask in any case."""
WHOLE: Mapping[Held, str] = {
    "nothing": "unlearn: all weights",
    "copy": "unlearn: all weights, with a copy as reference",
    "mask": "unlearn: all weights, behind a mask",
}
"""Kinds of training of all weights, by what is held besides."""
GPUS = (2, 4, 8)
"""Over how many a model is sharded: as many as a machine has."""


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
    """Of a question."""
    image_tokens: int
    across: int = 0
    """Tokens of a picture beside the row, to which the LLM attends across (Mllama)."""
    keys: int = 0
    """Activations of these, however many questions there are."""
    adapted_keys: int = 0
    """What adapters keep of them: the inputs of their projector, keys and values."""
    scored: int = 0
    """Activations of a token while one layer of the LLM runs without gradients."""
    gathered: int = 0
    """Parameters of the largest layer and of all that is in none: whole in every process of a sharded model."""
    spared: int = 0
    """Bytes that quantization saves once learning is over; 0 if the LLM is not quantized."""
    decoded: int = 0
    """Bytes of the largest quantized layer, dequantized while it runs."""

    @property
    def weights(self) -> int:
        """Bytes of the weights while the model is taught."""
        return self.itemsize * sum(self.parameters.values())

    def longer(self, questions: int) -> float:
        """How many times the tokens of one question with its picture a row of several has."""
        return (self.image_tokens + questions * TEXT) / (self.image_tokens + TEXT)


@dataclass(frozen=True)
class Phase:
    """What is held at a time, in bytes, beside the weights."""

    held: int
    row: int
    """Activations of a row, with headroom."""
    rows: int
    """Rows whose activations are held at once, if forward passes are not split."""

    def peak(self, rows: int | None = None) -> int:
        """Bytes with so many rows at once, by default all."""
        return self.held + self.row * (self.rows if rows is None else min(rows, self.rows))


@dataclass(frozen=True)
class Estimate:
    """What one kind of work takes, in bytes."""

    kind: str
    weights: int
    states: int
    """Gradients, master weights and AdamW's moments, and the adapters themselves."""
    copies: int
    """Copies of weights in other models or another type, masks, kept features, and of a quantized LLM one dequantized
    layer. What is put back after a trial is read from its file."""
    step: Phase
    """A training step, or a batch that is scored."""
    before: tuple[Phase, ...] = ()
    """What comes before the first step: gradients for a mask."""
    gathered: int = 0
    """What each process of a sharded model holds whole."""

    def peak(self, rows: int | None = None) -> int:
        """The most that is held at any time, with so many rows at once."""
        return self.weights + max(phase.peak(rows) for phase in (self.step, *self.before))

    def sharded(self, processes: int) -> int:
        """The most that each of several processes holds of a sharded model.

        They share the rows of a step, and none of what comes before it.
        """
        step = self.step.held / processes + self.step.row * -(-self.step.rows // processes)
        before = [phase.held / processes + phase.row * phase.rows for phase in self.before]
        return int(self.gathered + self.weights / processes + max([step, *before]))

    def rows(self, memory: float) -> int:
        """The most rows at once that fit into so many bytes; 0 if not even one does."""
        return max((rows for rows in range(1, self.most_rows + 1) if self.peak(rows) <= memory), default=0)

    @property
    def most_rows(self) -> int:
        """Rows whose activations are held at once, if forward passes are not split."""
        return max(phase.rows for phase in (self.step, *self.before))


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
    layers_across = len(getattr(text, "cross_attention_layers", ()))
    into_llm = sum(layer.in_features for layer in vlm.linear(("projector",)).values())
    in_layers = [sum(p.numel() for p in layer.parameters()) for layer in vlm.layers()]
    return Shape(
        itemsize=size,
        parameters=parameters,
        trainable={part: sum(p.numel() for p in vlm.trainable([part]).values()) for part in PARTS},
        adapters=RANK * sum(layer.in_features + layer.out_features for layer in adapted),
        adapter_inputs=(vlm.image_tokens + TEXT) * sum(layer.in_features for layer in adapted),
        llm_trained=tokens * (5 * d + 4 * f),
        llm_passed=tokens * (3 * d + 3 * f),
        vision=(vlm.across or (vlm.side // patch_side(vlm.model.config)) ** 2) * layers * (8 * width + 2 * inner),
        logits=3 * ANSWER * vlm.vocabulary,
        image_tokens=vlm.image_tokens,
        across=vlm.across,
        keys=vlm.across * layers_across * ACROSS * d,
        adapted_keys=vlm.across * (layers_across * 2 * d + into_llm),
        scored=4 * d + 2 * f,
        gathered=sum(parameters.values()) - sum(in_layers) + max(in_layers),
        spared=sum(size * layer.weight.numel() - codes for layer, codes in coded.items()),
        decoded=DECODED * max((layer.weight.numel() for layer in coded), default=0),
    )


@dataclass(frozen=True)
class _Rows:
    """The bytes of a row of some questions in each kind of work, with headroom."""

    shape: Shape
    questions: int

    def _of(self, activations: float) -> int:
        return int(HEADROOM * self.shape.itemsize * activations)

    @property
    def logits(self) -> int:
        return FLOAT32 * self.shape.logits * self.questions

    @property
    def features(self) -> int:
        """Of a picture that goes through a visual module that is trained."""
        return self._of(self.shape.vision)

    @property
    def adapted(self) -> int:
        """Adapters of the LLM are trained."""
        inputs = FLOAT32 * self.shape.adapter_inputs * self.shape.longer(self.questions)
        activations = self.shape.llm_trained * self.shape.longer(self.questions) + self.shape.keys
        return self._of(activations) + int(inputs) + FLOAT32 * self.shape.adapted_keys + self.logits

    @property
    def through(self) -> int:
        """The visual module is trained through a frozen LLM."""
        seen = self.shape.vision + self.shape.keys
        return self._of(seen + self.shape.llm_passed * self.shape.longer(self.questions)) + self.logits

    @property
    def whole(self) -> int:
        """Everything is trained."""
        seen = self.shape.vision + self.shape.keys
        return self._of(seen + self.shape.llm_trained * self.shape.longer(self.questions)) + self.logits


def estimates(shape: Shape, pictures: int = PICTURES, questions: int = QUESTIONS) -> list[Estimate]:
    """Every kind of work of a study; with a quantized LLM, after learning, what changes the visual module alone.

    What a trial puts back it reads from the learned model's file, of which all processes of a machine share the pages.
    """
    rows, adapters = _Rows(shape, questions), (4 * FLOAT32 * shape.adapters, _casts(shape))
    learn = _estimate(shape, LEARN, *adapters, rows.adapted, pictures, taught=True)
    visual = [_features(shape, rows, pictures), _described(shape, rows, pictures)]
    if shape.decoded:
        return [learn, *visual, _scoring(shape)]
    return [
        learn,
        _estimate(shape, ADAPTERS, *adapters, rows.adapted, 2 * pictures),
        *visual,
        *_all_weights(shape, rows, pictures),
        _scoring(shape),
    ]


def _estimate(
    shape: Shape, kind: str, states: int, copies: int, row: int, rows: int, *,
    before: tuple[Phase, ...] = (), taught: bool = False,
) -> Estimate:  # fmt: skip
    """An estimate in which what is held in a step is added up."""
    held = shape.weights if taught else shape.weights - shape.spared
    gathered = shape.itemsize * shape.gathered
    return Estimate(kind, held, states, copies, Phase(states + copies, row, rows), before, gathered)


def _casts(shape: Shape) -> int:
    """The copies that autocast makes of float32 weights, all of which a loss on answers goes through."""
    return BFLOAT16 * sum(shape.parameters.values()) if shape.itemsize == FLOAT32 else 0


def _visual(shape: Shape) -> int:
    return shape.trainable["vision"] + shape.trainable["projector"]


def _features(shape: Shape, rows: _Rows, pictures: int) -> Estimate:
    """`vkd:variant=features`: vanilla's visual module beside the trained one."""
    seen = _visual(shape)
    copies = shape.itemsize * seen + FEATURE_BYTES + shape.decoded
    states, compared = TRAINED[shape.itemsize] * seen, (1 + KEPT_PICTURES) * pictures
    return _estimate(shape, VISUAL["features"], states, copies, rows.features, compared)


def _described(shape: Shape, rows: _Rows, pictures: int) -> Estimate:
    """`vkd`: vanilla's and the base model's visual modules, a mask, and losses on answers beside the distances."""
    seen = _visual(shape)
    copies = (2 * shape.itemsize + FLOAT32) * seen + FEATURE_BYTES + shape.decoded + _casts(shape)
    compared = (1 + KEPT_PICTURES) * rows.features // 2  # for each picture there are two rows of answers
    return _estimate(
        shape, VISUAL["nothing"], TRAINED[shape.itemsize] * seen, copies,
        rows.through + compared, 2 * pictures,
        before=(_saliency(shape, seen, _Rows(shape, SALIENCY_QUESTIONS).through, beside=2 * shape.itemsize * seen),),
    )  # fmt: skip


def _saliency(shape: Shape, masked: int, row: int, *, beside: int = 0) -> Phase:
    """What a mask is made of: squared gradients of both sides, their ratios, and a gradient; `beside` copies."""
    return Phase((3 * FLOAT32 + shape.itemsize) * masked + _casts(shape) + beside, row, SALIENCY_PICTURES)


def _all_weights(shape: Shape, rows: _Rows, pictures: int) -> list[Estimate]:
    """Losses on answers that train everything: by themselves, beside a copy (NPO, KL), behind a mask (MMUnlearner)."""
    every = _visual(shape) + shape.trainable["llm"]
    masked = (FLOAT32 + FLOAT32) * every  # the mask, and the gradient that it was multiplied with
    salient = _saliency(shape, every, _Rows(shape, SALIENCY_QUESTIONS).whole)
    kinds: tuple[tuple[Held, int, tuple[Phase, ...]], ...] = (
        ("nothing", 0, ()),
        ("copy", shape.weights, ()),
        ("mask", masked, (salient,)),
    )
    return [
        _estimate(
            shape, WHOLE[held], TRAINED[shape.itemsize] * every, copies + _casts(shape), rows.whole,
            2 * pictures, before=before,
        )
        for held, copies, before in kinds
    ]  # fmt: skip


def _scoring(shape: Shape) -> Estimate:
    """A batch of rows of questions, without gradients."""
    tokens = shape.image_tokens + ASKED * TEXT
    row = int(HEADROOM * shape.itemsize * tokens * shape.scored) + FLOAT32 * shape.logits * ASKED
    rows = max(1, TOKENS_PER_BATCH // (tokens + shape.across))
    return _estimate(shape, f"score: {ASKED} questions of a picture", 0, shape.decoded, row, rows)


def fit(found: Estimate, memory: float, quantized: Estimate | None = None) -> str:
    """How some work fits on a GPU of so many bytes, in words; `quantized` is the same work with a quantized LLM."""
    room = memory - RESERVED
    if found.peak() <= room:
        return "whole"
    if rows := found.rows(room):
        return f"{rows} of {found.most_rows} rows at once"
    if quantized and quantized.rows(room):
        return "nf4"
    return next((f"FSDP on {count}" for count in GPUS if found.sharded(count) <= room), "no")


def describe(folder: Path, loading: Loading) -> str:
    """What each kind of work of the model in a Hugging Face folder takes with one row at a time, in words.

    Workers ask that know the folder to be sound, and with their threads they had better not be copied.
    """
    found = estimates(shape(without_weights(folder, loading, checked=True), loading.quantized))
    return "; ".join(f"{e.kind} {e.peak(1) / GIB:.2f} GiB" for e in found)
