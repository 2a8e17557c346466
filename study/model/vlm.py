"""A multimodal LLM as the study sees it: parts, prompts, features, weights on disk.

What differs between model families is defined in `study.model.families`. Shapes as in `study.model`; B counts pictures.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast

import torch
from PIL import Image
from torch import Tensor, nn

from study.core.errors import Refused
from study.core.terms import PARTS, Attention, Part, Quantized
from study.data.conversation import turns
from study.data.picture import Picture
from study.engine.microbatches import MicroBatching, Run
from study.model.adapter import Adapter
from study.model.byte_cache import ByteCache
from study.model.families import CUTS, expander, family_of, output_head, read_layers, skip_unread, tower_side, unread
from study.model.quantization import QuantizedLinear
from study.model.vision import Features, Pixels, joined, patches_counted, pixel_cache, pixels_from, squared

if TYPE_CHECKING:  # transformers and FSDP take seconds to import, and whoever plans a study needs neither
    from transformers import PreTrainedModel
    from transformers.processing_utils import ProcessorMixin

    from study.engine.fsdp import ShardedForward

T = TypeVar("T")
TokenIds = dict[tuple[str, bool, str | None], tuple[int, ...]]
"""The tokens of a prompt, with a picture or without, or those of an answer to it."""
TOLD = frozenset({"input_ids", "attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids"})
"""What a model is told of its tokens by the family; whatever else its processor writes for each is a mark."""


@dataclass
class VLM:
    """A model with its processor. `instruction` precedes every prompt and every reply begins with `prefill`.

    All pictures of a study take the same number of tokens: in families where that depends on the shape, pictures are
    first padded to a square and resized to one side (`Family.side`).
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    instruction: str = ""
    prefill: str = ""
    chunks: MicroBatching = field(default_factory=MicroBatching, repr=False)
    sharded: ShardedForward | None = field(default=None, repr=False)
    """If the model is sharded over several processes, the module that gathers it for a forward pass."""
    adapters: dict[str, Adapter] = field(default_factory=dict, repr=False)
    """The adapters that were merged into weights, by the names of these: a trial is stored as them."""
    _ids: TokenIds = field(default_factory=dict, repr=False)
    _pixels: ByteCache[Pixels] = field(default_factory=pixel_cache, repr=False)

    def __post_init__(self) -> None:
        self.family = family_of(self.model.config.model_type)
        self.prefixes = self.family.parts(self.model)
        self.beside = self.family.beside(self.model, self.prefixes)
        skip_unread(self.model.get_submodule(self.prefixes["vision"]), self.model.config)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.device

    @property
    def attention(self) -> Attention:
        """How attention is computed."""
        found: Attention = self.model.config._attn_implementation
        return found

    @property
    def quantized(self) -> Quantized:
        """The format of the LLM's linear layers; empty if they are not quantized."""
        return next((layer.format for layer in self.model.modules() if isinstance(layer, QuantizedLinear)), "")

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
        return self.family.image_id(self.model.config)

    @property
    def packs(self) -> bool:
        """Whether questions about a picture can share a row, so that each sees its ancestors alone."""
        return not (self.recurrent or self.family.prefix)

    @property
    def recurrent(self) -> bool:
        """Whether layers read a row as it stands, whatever a mask says: a row has one answer then."""
        return bool(self.family.recurrent(self.model.config))

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The tokens that count as a picture's where these see each other; in Molmo its frame is among them."""
        named = getattr(self.processor, "image_token_ids", None) or ()
        return tuple({self.image_id, *(token for token in named if token is not None)})

    @property
    def across(self) -> int:
        """How many tokens of a picture the LLM attends to across, beside the row of words; 0 if they stand in it."""
        return self.family.across(self.model.config)

    @property
    def vocabulary(self) -> int:
        """The number of tokens with an embedding."""
        embeddings: Any = self.model.get_input_embeddings()
        return len(embeddings.weight)

    @property
    def outputs(self) -> int:
        """The number of tokens with a logit."""
        return int(getattr(output_head(self.model), "out_features", self.vocabulary))

    # ---- parts -------------------------------------------------------------------------------------------------
    def part_of(self, name: str) -> Part:
        """The part to which a parameter belongs; whatever is neither tower nor projector counts as the LLM."""
        return self.family.part_of(name, self.prefixes, self.beside)

    def trainable(self, parts: Sequence[Part]) -> dict[str, torch.nn.Parameter]:
        """The parameters of `parts` that can get a gradient, by name.

        Unused layers of the tower (in LLaVA the last layers and the final norm) never get one: they are neither trained
        nor masked nor counted. Raises `Refused` as `check_changeable` does.
        """
        self.check_changeable(parts)
        prefix = self.prefixes["vision"]
        dropped = {f"{prefix}.{name}" for name in unread(self.model.get_submodule(prefix), self.model.config)}
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if self.part_of(name) in parts and name not in dropped
        }

    def check_changeable(self, parts: Sequence[Part]) -> None:
        """Raise `Refused` if one of `parts` is a quantized LLM, which nothing can change.

        Its other tensors (norms, embeddings, the head) are not changed either: a part is changed or not.
        """
        if "llm" in parts and self.quantized:
            raise Refused(
                f"{'+'.join(parts)}: the base model was loaded with quantized={self.quantized}, so its llm is frozen; "
                "name vision, projector or both, or leave quantized out of the base model's settings"
            )

    def linear(self, parts: Sequence[Part], *, head: bool = False) -> dict[str, nn.Linear]:
        """The linear layers of `parts` by name, the output head only with `head`, without quantized ones."""
        last = output_head(self.model)
        return {
            name: module
            for name, module in self.model.named_modules()
            if is_product(module) and self.part_of(f"{name}.weight") in parts and (head or module is not last)
        }

    # ---- prompts -----------------------------------------------------------------------------------------------
    def prompt_ids(self, prompt: str, with_picture: bool) -> tuple[int, ...]:
        """The tokens of a user turn up to the beginning of the answer, image placeholders expanded.

        A prompt may have earlier turns (`study.data.conversation`): picture and instruction are in the first.
        """
        key = (prompt, with_picture, None)
        if key not in self._ids:
            self._ids[key] = self.written_ids(self._text(prompt, with_picture), with_picture)
        return self._ids[key]

    def answer_ids(self, prompt: str, with_picture: bool, answer: str) -> tuple[int, ...]:
        """The tokens of `answer` after the prompt, tokenized together so that word boundaries are the model's own."""
        key = (prompt, with_picture, answer)
        if key not in self._ids:
            before = self.prompt_ids(prompt, with_picture)
            text = self._text(prompt, with_picture)
            whole = self.written_ids(text + ("" if text[-1:].isspace() else " ") + answer, with_picture)
            apart = whole[: len(before)] != before or len(whole) == len(before)
            alone = self.tokenizer(answer, add_special_tokens=False).input_ids if apart else whole[len(before) :]
            self._ids[key] = tuple(alone)
        return self._ids[key]

    def _text(self, prompt: str, with_picture: bool) -> str:
        first, *later = turns(prompt)
        if self.instruction:
            first = f"{self.instruction}\n{first}"
        said = [
            self.family.reply(turn) if i % 2 == 0 else self.family.turn(turn, False) for i, turn in enumerate(later)
        ]
        text = self.chat([self.family.turn(first, with_picture), *said])
        if self.prefill:
            text += ("" if text[-1:].isspace() else " ") + self.prefill
        return text

    def chat(self, said: list[Any], *, answered: bool = False) -> str:
        """Turns as the chat template writes them, up to the beginning of the answer, or the end if the last is one."""
        text: str = self.processor.apply_chat_template(said, add_generation_prompt=not answered, tokenize=False)
        return text

    def written_ids(self, text: str, pictures: int) -> tuple[int, ...]:
        """The tokens of a complete prompt, with the placeholders of `pictures` pictures expanded.

        Special tokens are added as `apply_chat_template(tokenize=True)` adds them: not where a template wrote the first
        (Gemma 3), so each prompt is looked at.
        """
        return tuple(self._written(text, pictures)["input_ids"][0].tolist())

    def _written(self, text: str, pictures: int) -> Any:
        """What the processor makes of a complete prompt with blank pictures."""
        if pictures not in self._expanders:
            self._expanders[pictures] = expander(self.processor)
        return self.processed(self._expanders[pictures], text, [self._blank] * pictures)

    def processed(self, processor: Any, text: str, images: Sequence[Image.Image]) -> Any:
        """What a processor of this family makes of a complete prompt and its pictures."""
        begun = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
        options = {"add_special_tokens": False} if begun else {}
        if not images:
            reads = self.tokenizer if self._reads_like_its_tokenizer else processor
            return reads(text=[text], return_tensors="pt", **options)
        try:
            return processor(text=[text], images=[list(images)], return_tensors="pt", **options)
        except ValueError:  # GOT-OCR takes a list in a list for the pages of one document
            return processor(text=[text], images=list(images), return_tensors="pt", **options)

    @cached_property
    def _reads_like_its_tokenizer(self) -> bool:
        """Whether the processor makes of a text what its tokenizer does, which is quicker: Molmo's does not."""
        try:
            made = cast(Any, self.processor)(text=["What?"])["input_ids"][0]
        except (ValueError, TypeError, KeyError, AttributeError):  # GOT-OCR's takes no text alone
            return True
        return list(made) == list(self.tokenizer(text=["What?"])["input_ids"][0])

    @cached_property
    def _picture_options(self) -> dict[str, Any]:
        """What the processor asks of its image processor whatever that is set to (Aria: pictures of 980 pixels)."""
        older: Any = getattr(getattr(self.processor, "valid_processor_kwargs", None), "_defaults", {})
        settings = {**older.get("images_kwargs", {}), **getattr(self.processor, "images_kwargs", {})}
        kept_whole = set(CUTS) | {"return_tensors"}
        return {name: value for name, value in settings.items() if name not in kept_whole}

    @cached_property
    def _expanders(self) -> dict[int, Any]:
        """By the number of pictures in a prompt."""
        return {}

    @property
    def image_tokens(self) -> int:
        """The number of placeholder tokens of one picture."""
        return self.prompt_ids("", True).count(self.image_id)

    def grid_positions(self, ids: Sequence[int], pictures: int = 1) -> list[list[int]]:
        """Positions of a prompt with pictures where a token has several (M-RoPE of Qwen), a row for each; else empty.

        Without a picture all three equal the index in the text, so it is empty as well.
        """
        if self.family.axes(self.model) == 1 or self.image_id not in ids:
            return []
        tokens = torch.tensor([ids])
        shown = {name: tensor.expand(pictures, *tensor.shape[1:]) for name, tensor in self._grey.tensors.items()}
        return self.family.positions(self.model, tokens, tokens == self.image_id, shown)

    @cached_property
    def inputs(self) -> frozenset[str]:
        """The names of the model's arguments."""
        return frozenset(inspect.signature(type(self.model).forward).parameters)

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        """Further inputs of a family for tokens (B, L): which of them are or see image tokens, and their `marks`."""
        shown = torch.isin(ids, torch.tensor(self.image_ids, device=ids.device))
        types = self.family.token_types(self.inputs, shown) | self.marks(ids)
        return types | self.family.seen_across(self.model.config, shown)

    def marks(self, ids: Tensor) -> dict[str, Tensor]:
        """What else the model asks of tokens (B, L), as its processor says it: Ernie, which its vision experts read."""
        return {
            name: torch.isin(ids, torch.tensor(marked, device=ids.device)).long()
            for name, marked in self._marked.items()
        }

    @cached_property
    def _marked(self) -> dict[str, list[int]]:
        """By the name of such an input, the tokens of a picture and its frame that the processor marks by 1.

        Raises `ValueError` if it looks at more than the token.
        """
        made = self._written(self._text("What?", True), 1)
        ids, found = made["input_ids"], {}
        for name in (set(made) & self.inputs) - TOLD:
            if isinstance(made[name], Tensor) and made[name].shape == ids.shape and name not in self._grey.tensors:
                found[name] = ids[made[name] != 0].unique().tolist()
                if not torch.equal(torch.isin(ids, torch.tensor(found[name])).to(made[name].dtype), made[name]):
                    raise ValueError(f"the processor writes {name} of more than each token; the family needs a file")
        return found

    # ---- pictures ----------------------------------------------------------------------------------------------
    def prepared(self, image: Image.Image) -> Image.Image:
        """A decoded picture as the processor gets it: squared where tokens depend on the shape, else unchanged."""
        side = self.family.side(self.processor.image_processor, self.model.config)
        if side is None:
            return image
        red, green, blue = (round(255 * mean) for mean in self.processor.image_processor.image_mean)
        return squared(image, side, (red, green, blue))

    def pixels(self, pictures: Sequence[Picture]) -> Pixels:
        """The model's inputs for B pictures, in float32, cached so that few pictures are decoded twice."""
        found = {p.key: pixels for p in pictures if (pixels := self._pixels.get(p.key)) is not None}
        missing = {p.key: p for p in pictures if p.key not in found}
        if missing:
            made = self.pixels_of([p.open() for p in missing.values()]).apart()
            found |= {key: self._pixels.put(key, one) for key, one in zip(missing, made, strict=True)}
        return joined([found[p.key] for p in pictures]).to(self.device)

    def pixels_of(self, images: Sequence[Image.Image]) -> Pixels:
        """The model's inputs for B decoded images, in float32, on the CPU."""
        made = self._made([self.prepared(image) for image in images])
        return pixels_from(made, len(images), self.inputs, *self._side_by_side)

    def _made(self, images: Sequence[Image.Image]) -> Mapping[str, Tensor]:
        nested = [[image] for image in images]  # one sample each: Idefics counts pictures per sample
        made: Mapping[str, Tensor] = self.processor.image_processor(
            nested, return_tensors="pt", **self._picture_options
        )
        return made

    @cached_property
    def _side_by_side(self) -> tuple[frozenset[str], dict[str, int]]:
        """What is seen of two pictures: the inputs in which the processor lays them side by side, and those in which it
        counts patches through both, with the patches of one."""
        made = self._made([self._blank] * 2)
        wide = (name for name, tensor in made.items() if isinstance(tensor, Tensor) and tensor.shape[:1] == (1,))
        counted = {name: patches_counted(tensor) for name, tensor in made.items()}
        return frozenset(wide), {name: patches for name, patches in counted.items() if patches}

    def grey(self, count: int = 1) -> Pixels:
        """A uniformly grey picture `count` times, for blind scores."""
        return self._grey[[0] * count].to(self.device)

    @property
    def _grey(self) -> Pixels:
        """One of them, in main memory."""
        kept = self._pixels.get("grey")  # no digest is spelt like that
        return self._pixels.put("grey", self.pixels_of([self._blank])) if kept is None else kept

    @property
    def side(self) -> int:
        """The side in pixels of a picture in the vision tower."""
        side = self.family.side(self.processor.image_processor, self.model.config)
        return tower_side(self.processor.image_processor, self.model.config) if side is None else side

    @cached_property
    def _blank(self) -> Image.Image:
        return Image.new("RGB", (self.side, self.side), (128, 128, 128))

    def features(self, pixels: Pixels) -> Features:
        """The hidden state after every vision layer that feeds the LLM, and the projected tokens. No LLM call."""
        like = next(iter(pixels.tensors.values()))
        *layers, projected = self.over(like, lambda rows: self.encoded(pixels[rows]))
        return Features(tuple(layers), projected)

    @property
    def _projectors(self) -> list[nn.Module]:
        """The modules of the projector, its main one first."""
        beside = (name for name, part in self.beside.items() if part == "projector")
        found = (_submodule(self.model, name) for name in (self.prefixes["projector"], *beside))
        return [module for module in found if module is not None]

    def head(self, hidden: Tensor) -> Tensor:
        """The logits (T, V) of last hidden states (T, D), within a forward pass that has begun."""
        return self.family.head(self.model, hidden)

    def encoded(self, pixels: Pixels) -> list[Tensor]:
        """The same as a list of tensors, within a forward pass that has begun."""
        states: list[Tensor] = []

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            states.append(self.family.of_pictures(tower, output if isinstance(output, Tensor) else output[0]))

        tower = self.model.get_submodule(self.prefixes["vision"])
        hooks = [layer.register_forward_hook(keep) for layer in read_layers(tower, self.model.config)]
        try:
            projected = self.family.image_features(self.model, self._projectors, pixels.inputs(self.model.dtype))
        finally:
            for hook in hooks:
                hook.remove()
        return [tensor.reshape(len(pixels), -1, tensor.shape[-1]) for tensor in (*states, projected)]

    # ---- passes ------------------------------------------------------------------------------------------------
    def run(self, computed: Callable[[], T]) -> T:
        """Run `computed()` as a forward pass, whatever it runs of the model. Passes must not be nested."""
        return computed() if self.sharded is None else self.sharded.forward_pass(computed)

    def over(self, like: Tensor, run: Run) -> list[Tensor]:
        """The results of `run` for all rows of `like`, in micro-batches and shared processes: `MicroBatching.over`."""
        return self.chunks.over(like, run, self.run)

    def independent_passes(self) -> AbstractContextManager[None]:
        """Within the block, processes that do a job together need not run the same passes. No gradients."""
        return nullcontext() if self.sharded is None else self.sharded.independent_passes()

    def shard(self) -> VLM:
        """The same model, from now on sharded over the processes."""
        from study.engine.fsdp import ShardedForward

        return replace(self, sharded=ShardedForward(self.model, self.layers()))

    def layers(self) -> list[nn.Module]:
        """The layers of the vision tower and of the LLM."""
        tower, llm = (self.model.get_submodule(self.prefixes[part]) for part in ("vision", "llm"))
        return [*self.family.layers(tower), *cast(nn.ModuleList, llm.layers)]

    # ---- copies and weights ------------------------------------------------------------------------------------
    def frozen_copy(self, parts: Sequence[Part] = PARTS) -> VLM:
        """A copy that does not change when `parts` of this model are trained; all other tensors are shared.

        All tensors of a sharded model are copied, which is only a shard in each process.
        """
        if self.sharded is not None:
            from study.engine.fsdp import copied, fill

            twin = replace(self, model=copied(self.model), sharded=None).shard()
            fill(twin.model, self.model)
            return twin
        kept = [p for name, p in self.model.named_parameters() if self.part_of(name) not in parts]
        shared: dict[int, Any] = {id(tensor): tensor for tensor in [*kept, *self.model.buffers()]}
        model = copy.deepcopy(self.model, shared)
        for name, parameter in model.named_parameters():
            if self.part_of(name) in parts:
                parameter.requires_grad_(False)
        return replace(self, model=model)

    def with_instruction(self, instruction: str) -> VLM:
        """The same weights with `instruction` before every prompt."""
        return replace(self, instruction=instruction, _ids={})

    def with_prefill(self, prefill: str) -> VLM:
        """The same weights with replies that begin with `prefill`, after the assistant's tag."""
        return replace(self, prefill=prefill, _ids={})

    def reading_with(self, ids: TokenIds) -> VLM:
        """The same weights with tokens of texts that were looked up before, for a model that reads as this one does."""
        return replace(self, _ids=ids)

    def forgetful(self) -> VLM:
        """The same weights with a separate cache of pictures, which is freed together with it."""
        return replace(self, _pixels=pixel_cache())

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter by name."""
        return {name: p.detach() for name, p in self.model.named_parameters()}


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    """The module of a name; None for a parameter, or where there is nothing of that name."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def is_product(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is a linear layer and nothing more: Llama 4's router is one that returns something else."""
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
