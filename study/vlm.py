"""A multimodal LLM as the study sees it: parts, prompts, features, weights on disk.

Everything that differs between transformers versions or model families is said here once. Shapes: B batch, N vision
tokens, D width, V vocabulary, T answer tokens.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from study.questions import Picture
from study.store import file_digest, read_json, write_json, written

Part = Literal["vision", "projector", "llm"]
PARTS: tuple[Part, ...] = ("vision", "projector", "llm")

_VISION = ("vision_tower", "vision_model", "visual")
_PROJECTOR = ("multi_modal_projector", "connector")
_LLM = ("language_model", "text_model")


@dataclass(frozen=True)
class Features:
    """What a visual module says of B pictures: one (B, N, D) tensor per vision layer, and the projected tokens."""

    layers: tuple[Tensor, ...]
    projected: Tensor

    def __getitem__(self, rows: Any) -> Features:
        return Features(tuple(layer[rows] for layer in self.layers), self.projected[rows])

    def mean(self) -> Features:
        """The mean over the batch, kept as a batch of one."""
        return Features(
            tuple(layer.mean(0, keepdim=True) for layer in self.layers), self.projected.mean(0, keepdim=True)
        )


@dataclass
class VLM:
    """A model with its processor. `instruction` is put in front of every prompt (no weights change)."""

    model: PreTrainedModel
    processor: ProcessorMixin
    instruction: str = ""
    _ids: dict[tuple[str, bool, str | None], tuple[int, ...]] = field(default_factory=dict, repr=False)
    _pixels: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.prefixes = _find_parts(self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.model.device

    @property
    def tokenizer(self) -> Any:
        """The tokenizer inside the processor."""
        return self.processor.tokenizer

    @property
    def eos_id(self) -> int:
        """The token that ends an answer."""
        return int(self.tokenizer.eos_token_id)

    @property
    def image_id(self) -> int:
        """The placeholder token of a picture."""
        return int(self.tokenizer.convert_tokens_to_ids(self.tokenizer.image_token))

    # ---- parts -------------------------------------------------------------------------------------------------
    def part_of(self, name: str) -> Part:
        """The part that a parameter belongs to; whatever is neither tower nor projector counts as the LLM."""
        for part in ("vision", "projector"):
            if name.startswith(f"{self.prefixes[part]}."):
                return part
        return "llm"

    def trainable(self, parts: Sequence[Part]) -> dict[str, torch.nn.Parameter]:
        """The parameters of `parts` that can get a gradient, by name.

        LLaVA reads `hidden_states[vision_feature_layer]`: later vision layers and the final norm never get one, so
        they are neither trained nor masked nor counted.
        """
        unread = self._unread_vision()
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if self.part_of(name) in parts and not name.startswith(unread)
        }

    def _unread_vision(self) -> tuple[str, ...]:
        config = self.model.config
        layer = getattr(config, "vision_feature_layer", None)
        if not isinstance(layer, int):
            return ()
        depth = config.vision_config.num_hidden_layers
        read = layer if layer >= 0 else depth + 1 + layer
        unread = [f"{self.prefixes['vision']}.encoder.layers.{i}." for i in range(read, depth)]
        return (*unread, f"{self.prefixes['vision']}.post_layernorm.")

    # ---- prompts -----------------------------------------------------------------------------------------------
    def prompt_ids(self, prompt: str, with_picture: bool) -> tuple[int, ...]:
        """The tokens of a user turn up to where the answer starts, image placeholders expanded."""
        key = (prompt, with_picture, None)
        if key not in self._ids:
            self._ids[key] = tuple(self.tokenizer(self._text(prompt, with_picture)).input_ids)
        return self._ids[key]

    def answer_ids(self, prompt: str, with_picture: bool, answer: str) -> tuple[int, ...]:
        """The tokens of `answer` after the prompt, tokenised together so that word boundaries are the model's own."""
        key = (prompt, with_picture, answer)
        if key not in self._ids:
            before = self.prompt_ids(prompt, with_picture)
            text = self._text(prompt, with_picture)
            whole = tuple(self.tokenizer(text + ("" if text[-1:].isspace() else " ") + answer).input_ids)
            apart = whole[: len(before)] != before or len(whole) == len(before)
            alone = self.tokenizer(answer, add_special_tokens=False).input_ids if apart else whole[len(before) :]
            self._ids[key] = tuple(alone)
        return self._ids[key]

    def _text(self, prompt: str, with_picture: bool) -> str:
        if self.instruction:
            prompt = f"{self.instruction}\n{prompt}"
        content = [{"type": "image"}] * with_picture + [{"type": "text", "text": prompt}]
        turns: list[Any] = [{"role": "user", "content": content}]
        text: str = self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        token = self.tokenizer.image_token
        return text.replace(token, token * self.image_tokens) if with_picture else text

    @property
    def image_tokens(self) -> int:
        """How many placeholders one picture takes (fixed for LLaVA-1.5-like models)."""
        config = self.model.config
        side = config.vision_config.image_size // config.vision_config.patch_size
        return int(side * side + (config.vision_feature_select_strategy == "full"))

    # ---- pictures ----------------------------------------------------------------------------------------------
    def pixels(self, pictures: Sequence[Picture]) -> Tensor:
        """The processor's tensor for pictures, (B, 3, H, W) float32, kept so that none is decoded twice."""
        missing = {p.key: p for p in pictures if p.key not in self._pixels}
        if missing:
            made = self.pixels_of([p.open() for p in missing.values()])
            self._pixels.update(zip(missing, made, strict=True))
        return torch.stack([self._pixels[p.key] for p in pictures]).to(self.device)

    def pixels_of(self, images: Sequence[Image.Image]) -> Tensor:
        """The processor's tensor for decoded images, (B, 3, H, W) float32."""
        made: Tensor = self.processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
        return made

    def grey(self) -> Tensor:
        """A uniformly grey picture's pixels, (3, H, W): what a model that sees nothing is shown."""
        size = self.model.config.vision_config.image_size
        return self.pixels_of([Image.new("RGB", (size, size), (128, 128, 128))])[0].to(self.device)

    def features(self, pixels: Tensor) -> Features:
        """The hidden state after every vision layer that is read, and the projected tokens. No LLM call."""
        out = self.model.model.get_image_features(pixel_values=pixels.to(self.model.dtype), output_hidden_states=True)
        projected = out.pooler_output
        if not isinstance(projected, Tensor):
            projected = torch.stack(list(projected))
        layer = getattr(self.model.config, "vision_feature_layer", -1)
        states = out.hidden_states[1:]
        read = layer if layer >= 0 else len(states) + 1 + layer
        return Features(tuple(states[:read]), projected)

    # ---- copies and weights ------------------------------------------------------------------------------------
    def frozen_copy(self, parts: Sequence[Part] = PARTS) -> VLM:
        """A copy that will not change when `parts` of this model are trained; all other tensors are shared."""
        kept = [p for name, p in self.model.named_parameters() if self.part_of(name) not in parts]
        shared: dict[int, Any] = {id(tensor): tensor for tensor in [*kept, *self.model.buffers()]}
        model = copy.deepcopy(self.model, shared)
        for name, parameter in model.named_parameters():
            if self.part_of(name) in parts:
                parameter.requires_grad_(False)
        return VLM(model, self.processor, self.instruction, self._ids, self._pixels)

    def copy(self) -> VLM:
        """An independent copy of the weights; processor and caches are shared."""
        return VLM(copy.deepcopy(self.model), self.processor, self.instruction, self._ids, self._pixels)

    def with_instruction(self, instruction: str) -> VLM:
        """The same weights, asked with `instruction` in front of every prompt."""
        return VLM(self.model, self.processor, instruction, {}, self._pixels)

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter by name."""
        return {name: p.detach() for name, p in self.model.named_parameters()}


@contextlib.contextmanager
def restored(vlm: VLM) -> Iterator[tuple[VLM, dict[str, Tensor]]]:
    """Lend `vlm` out for training, with a copy of its tensors, and put back bit for bit whatever was changed."""
    before = {name: p.clone() for name, p in vlm.tensors().items()}
    try:
        yield vlm, before
    finally:
        apply_delta(vlm, {name: before[name] for name in delta(vlm, before)})
        for parameter in vlm.model.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> VLM:
    """Load a Hugging Face folder (safetensors only, no remote code).

    Raises `ValueError` naming the folder if the processor is not one for images and text, `OSError` if there is none,
    and `ValueError` naming the model's class if it lacks a part.
    """
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False, backend="pil")
    if not isinstance(processor, ProcessorMixin):
        raise ValueError(
            f"{folder}: the processor loads as a bare {type(processor).__name__}; an image-and-text "
            "processor (processor_config.json) is needed"
        )
    model: Any = AutoModelForImageTextToText.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=dtype,
        attn_implementation="sdpa",  # packed masks are boolean: eager attention would add them as numbers
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return VLM(model.to(device).eval(), processor)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically, with a SHA-256 beside them: safetensors has no checksum of its own.

    The checksum is written first, so that a file that is there can be checked.
    """
    with written(path) as draft:
        save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, draft)
        write_json(path.with_suffix(".sha256.json"), {"sha256": file_digest(draft)})


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors. Raises `ValueError` naming the file if it is damaged."""
    remedy = "remove it and run the study again to rebuild it"
    found, recorded = {"sha256": file_digest(path)}, path.with_suffix(".sha256.json")
    if not recorded.exists() or read_json(recorded) != found:
        raise ValueError(f"{path} is damaged (its SHA-256 is not the recorded one): {remedy}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error


def delta(vlm: VLM, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `vlm` that differ from `before`: all that a trial has to keep."""
    return {name: p for name, p in vlm.tensors().items() if not torch.equal(p, before[name])}


def apply_delta(vlm: VLM, changed: Mapping[str, Tensor]) -> None:
    """Write kept tensors into `vlm`, in place. Raises `ValueError` for a name or shape the model does not have."""
    there = dict(vlm.model.named_parameters())
    with torch.no_grad():
        for name, tensor in changed.items():
            if name not in there or there[name].shape != tensor.shape:
                raise ValueError(f"weights for {name} {tuple(tensor.shape)} do not fit this model")
            there[name].copy_(tensor)


def _find_parts(model: PreTrainedModel) -> dict[Part, str]:
    found: dict[Part, str] = {}
    wanted: tuple[tuple[Part, tuple[str, ...]], ...] = (("vision", _VISION), ("projector", _PROJECTOR), ("llm", _LLM))
    for part, names in wanted:
        there = [f"model.{name}" for name in names if hasattr(model.model, name)]
        if not there:
            raise ValueError(f"{type(model).__name__} has no {part}: looked for {', '.join(names)} under .model")
        found[part] = there[0]
    return found
