"""What can be said of a family of multimodal LLMs, and what is assumed of a model that has no file here."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from study.core.plugins import find, known
from study.core.terms import Part
from study.model.families._sides import found_side, number, vision_config
from study.model.families._structure import layer_list, llm_path, projector_pieces, second_towers, tower_path

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedConfig, PreTrainedModel
    from transformers.processing_utils import ProcessorMixin


FINDS: Mapping[Part, str] = {"vision": "get_encoder(modality='image')", "llm": "get_decoder()"}
IMAGE_IDS = ("image_token_id", "image_token_index", "image_patch_id")
"""What configurations call the placeholder of a picture's tokens."""
CUTS = ("do_image_splitting", "crop_to_patches", "do_pan_and_scan", "slice_mode", "split_image")
"""What image processors call the cutting of pictures into several."""
MLP_WIDTHS = ("intermediate_size", "moe_intermediate_size", "ffn_dim", "encoder_ffn_dim")
USUAL_RATIO = 4
"""Of the width of an MLP to that of its layer, where a configuration does not say."""
BOTH_WAYS = re.compile(r"(block_sequence_ids|mask_function)\W.*token_type_ids")
"""A line in the code of a model that makes its masks of token types: these may also be for positions alone."""
IN_ORDER = re.compile("linear|conv|mamba|recurrent|ssm|hybrid|indexed|sparse|compressed")
"""In the names of kinds of layers: those that no mask keeps from what stands before them in a row, and those that pick
or merge blocks of a row (MiniMax-M3), where every token counts that stands there, seen or not."""
SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""What configurations call that which is done to logits behind the output head, by some models."""
TOWERS_OWN = ("last_hidden_state", "hidden_states", "attentions", "vision_outputs", "qformer_outputs", "tower_output")
"""How that is called which `get_image_features` returns beside what the language model is given, of any tower."""


@functools.cache  # asked at every forward pass
def family_of(model_type: str) -> Family:
    """The family whose file is called like a `model_type`, or the general one."""
    family: Family = find("families", model_type)() if model_type in known("families") else Family()
    return family


@dataclass(frozen=True)
class Family:
    """Any model for images and text: its parts are looked for by their structure, and the rest by what it has.

    What is looked for here, the file of a family states.
    """

    vision: ClassVar[tuple[str, ...]] = ()
    """Where under `.model` the tower is: the first of these that is there. So for the other parts. Where none is named
    it is found by the structure of the model."""
    projector: ClassVar[tuple[str, ...]] = ()
    llm: ClassVar[tuple[str, ...]] = ()
    learned: ClassVar[tuple[str, ...]] = ()
    """Parameters under `.model` that count as the projector: projected tokens that are learned."""
    state_read: ClassVar[str | None] = "vision_feature_layer"
    """What the configuration calls the index of the hidden states that the projector reads; None if it has no such."""
    processor: ClassVar[type[ProcessorMixin] | None] = None
    """The class of the processor, where it is not the one that a folder's files name."""
    chat_template: ClassVar[str] = ""
    """What writes prompts where a folder has no chat template, in a family whose prompts are known without."""
    prefix: ClassVar[bool] = False
    """Whether all tokens of a prompt see each other, so that those of a picture depend on what is asked about it."""
    reply_type: ClassVar[int] = 0
    """The token type of a reply, in a family that tells its tokens apart."""
    neurons: ClassVar[tuple[tuple[tuple[str, ...], str], ...]] = (
        (("fc1",), "fc2"),  # the towers of CLIP, SigLIP, Idefics and Qwen2-VL
        (("gate_proj", "up_proj"), "down_proj"),  # every language model, Qwen2.5-VL's tower, Idefics2's connector
        (("linear_1",), "linear_2"),  # LLaVA's projector
        (("0",), "2"),  # Qwen's merger
        (("linear_fc1",), "linear_fc2"),  # Qwen3-VL's tower and mergers
        (("lin1",), "lin2"),  # SAM
        (("w1", "w3"), "w2"),  # LFM2, Molmo2's connector
    )
    """The linear layers into and out of the neurons of an MLP."""

    # ---- parts -----------------------------------------------------------------------------------------------------
    def parts(self, model: PreTrainedModel) -> dict[Part, str]:
        """The module of each part. Raises `ValueError` naming the model's class if it lacks one."""
        _check_passes(model, across=self.across(model.config) > 0)
        found: dict[Part, str] = {
            "vision": self._stated(model, "vision") or tower_path(model),
            "llm": self._stated(model, "llm") or llm_path(model),
        }
        for part, path in found.items():
            if not path or not list(model.get_submodule(path).parameters()):
                raise ValueError(f"{type(model).__name__} has no {part}: {FINDS[part]} names none")
        pieces = projector_pieces(model, found["vision"], found["llm"])
        found["projector"] = self._stated(model, "projector") or next(iter(pieces), "")
        if not found["projector"]:
            nothing = f"nothing stands beside {found['vision']}, nor behind its layers"
            raise ValueError(f"{type(model).__name__} has no projector: {nothing}")
        return found

    def _stated(self, model: PreTrainedModel, part: Part) -> str:
        """The first of a part's names that is there; raises `ValueError` if there are names and none of them is."""
        names: tuple[str, ...] = getattr(self, part)
        there = [f"model.{name}" for name in names if _has(inner(model), name)]
        if names and not there:
            raise ValueError(f"{type(model).__name__} has no {part}: looked for {', '.join(names)} under .model")
        return there[0] if there else ""

    def beside(self, model: PreTrainedModel, parts: Mapping[Part, str]) -> dict[str, Part]:
        """Further modules and parameters of the projector (Qwen3-VL's deepstack, learned tokens), and second towers."""
        if self.projector:
            return {f"model.{name}": "projector" for name in self.learned}
        pieces = projector_pieces(model, parts["vision"], parts["llm"])
        found: dict[str, Part] = {name: "projector" for name in pieces if name != parts["projector"]}
        return found | dict.fromkeys(second_towers(model, parts["vision"], parts["llm"]), "vision")

    def part_of(self, name: str, parts: Mapping[Part, str], beside: Mapping[str, Part]) -> Part:
        """The part that a parameter belongs to; whatever is neither tower nor projector counts as the LLM."""
        if name.startswith(f"{parts['projector']}.") or name == parts["projector"]:
            return "projector"  # asked first: Qwen's lies inside the tower
        for path, part in beside.items():
            if name == path or name.startswith(f"{path}."):
                return part
        return "vision" if name.startswith(f"{parts['vision']}.") else "llm"

    # ---- the tower -------------------------------------------------------------------------------------------------
    def layers(self, tower: nn.Module) -> list[nn.Module]:
        """All layers of the tower, first to last."""
        return layer_list(tower)

    def states_read(self, config: PreTrainedConfig) -> tuple[int, ...] | None:
        """Which hidden states the projector reads: 0 what the first layer is given, -1 what the last one makes of it.

        None if it is given what the tower says at its end, behind its last norm.
        """
        if self.state_read is None or not hasattr(config, self.state_read):
            return None
        states = getattr(config, self.state_read)
        return tuple(states) if isinstance(states, list | tuple) else (states,)

    def widths(self, vision: PreTrainedConfig) -> tuple[int, int]:
        """The widths of a layer of the tower and of its MLP, from the tower's configuration."""
        width = number(getattr(vision, "embed_dim", None) or vision.hidden_size)
        inner = getattr(vision, "intermediate_size", None) or getattr(vision, "mlp_dim", None)
        return width, number(inner) if inner else int(width * getattr(vision, "mlp_ratio", USUAL_RATIO))

    def text_widths(self, text: PreTrainedConfig) -> tuple[int, int]:
        """The widths of a layer of the LLM and of its MLP, from its configuration."""
        width = number(text.hidden_size)
        inner = next((i for i in (getattr(text, name, None) for name in MLP_WIDTHS) if i), USUAL_RATIO * width)
        return width, number(inner)

    def of_pictures(self, tower: nn.Module, state: Tensor) -> Tensor:
        """What a layer of the tower says (B, tokens, D) of the pictures themselves, where it says more (Mllama)."""
        return state

    # ---- passes ----------------------------------------------------------------------------------------------------
    def across(self, config: PreTrainedConfig) -> int:
        """How many tokens of a picture the LLM attends to across, beside the row of words; 0 if they stand in it.

        A prompt has one placeholder for a picture then, and what stands before it may depend on what it shows.
        """
        return 0

    def cache(self, config: PreTrainedConfig) -> Cache:
        """An empty cache of keys and values, and of what else a model's layers keep.

        It holds all of a row: what is outside of a window for some of its tokens is not for others.
        """
        from transformers import DynamicCache

        return DynamicCache(config=config.get_text_config()) if self.recurrent(config) else DynamicCache()

    def hidden(self, model: PreTrainedModel, **inputs: Any) -> Tensor:
        """The last hidden states (B, L, D), what the output head reads, of a forward pass with these inputs."""
        if inner(model) is not model:
            out: Tensor = inner(model)(**inputs).last_hidden_state
            return out
        read: list[Tensor] = []

        def keep(_module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            read.append(given[0])
            return (given[0][:, :1],)  # the head need not run on every token: nobody reads what it says

        with output_head(model).register_forward_pre_hook(keep):
            model(**inputs)
        return read[0]

    def head(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """The logits (T, V) of last hidden states (T, D).

        Where these are scaled or capped (Gemma 4, Granite), they are made by the end of the model's own forward pass.
        """
        text = model.config.get_text_config()
        if inner(model) is model or not any(getattr(text, name, None) for name in SCALES):
            plain: Tensor = output_head(model)(hidden)
            return plain
        with _answering(inner(model), hidden[None]):
            nothing = hidden.new_zeros(1, len(hidden), dtype=torch.long)
            logits: Tensor = model(input_ids=nothing, use_cache=False).logits
        return logits[0]

    def image_features(
        self, model: PreTrainedModel, projectors: Sequence[nn.Module], inputs: Mapping[str, Tensor]
    ) -> Tensor:
        """All that the language model is given of pictures, (tokens of all pictures, D), by the given projectors.

        Where it is told of them in several places (the deepstack of Qwen3-VL), these are side by side in D.
        """
        encode = inner(model).get_image_features
        taken = _arguments(type(inner(model)).get_image_features)
        calls: list[bool] = []
        with ExitStack() as hooks:
            for module in (module for projector in projectors for module in projector.modules()):
                hooks.enter_context(module.register_forward_hook(lambda *_: calls.append(True)))
            out = encode(**{name: tensor for name, tensor in inputs.items() if name in taken})
        told = _handed_over(out)
        if not calls:  # Llama 4 projects outside
            told = projectors[0](told)
        return told

    # ---- pictures --------------------------------------------------------------------------------------------------
    def keep_whole(self, image_processor: Any) -> None:
        """Have every picture prepared as one, where it would be cut into several."""
        for name in CUTS:
            if getattr(image_processor, name, None):
                setattr(image_processor, name, False)
        if getattr(image_processor, "vision_input_type", None) == "thumb+tile":  # PerceptionLM calls it by its sizes
            image_processor.vision_input_type = "thumb"

    def side(self, image_processor: Any, config: PreTrainedConfig) -> int | None:
        """The side in pixels of the square that every picture is brought to first; None if the processor sees to it.

        Qwen, Idefics and LLaVA-NeXT give pictures of different shapes different numbers of tokens. In a study all take
        the same: the side nearest to `SIDE` that the processor's own limits allow, or the tower's own for those that
        have one (Idefics3, LLaVA-NeXT).
        """
        return found_side(image_processor, config)

    # ---- prompts ---------------------------------------------------------------------------------------------------
    def image_id(self, config: PreTrainedConfig) -> int:
        """The placeholder token of a picture."""
        found = (getattr(config, name, None) for name in IMAGE_IDS)
        token = next((token for token in found if token is not None), None)
        if token is None:
            raise ValueError(f"{type(config).__name__} names no image token: looked for {', '.join(IMAGE_IDS)}")
        return int(token)

    def turn(self, prompt: str, with_picture: bool) -> dict[str, Any]:
        """What a user says, for the chat template: the picture first, so that all questions about it can share it."""
        content = [{"type": "image"}] * with_picture + [{"type": "text", "text": prompt}]
        return {"role": "user", "content": content}

    def reply(self, text: str) -> dict[str, Any]:
        """What the assistant said before, for the chat template."""
        return {"role": "assistant", "content": [{"type": "text", "text": text}]}

    def axes(self, model: PreTrainedModel) -> int:
        """How many positions a token has: 1, or 3 if the model tells those of pictures (M-RoPE of Qwen); Hunyuan: 4."""
        if not hasattr(inner(model), "get_rope_index"):
            return 1
        rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
        return len(rope.get("mrope_section") or (0, 0, 0))

    def positions(
        self, model: PreTrainedModel, ids: Tensor, shown: Tensor, pixels: Mapping[str, Tensor]
    ) -> list[list[int]]:
        """The positions of tokens (1, L), a row for each axis; `shown` ones belong to a picture with these pixels."""
        own = type(inner(model)).get_rope_index
        asks = _arguments(own)
        told = {name: tensor for name, tensor in pixels.items() if name in asks}
        told |= self.token_types(asks, shown)  # Qwen-Omni's looks at the ids instead
        told |= {"attention_mask": torch.ones_like(ids)} if "attention_mask" in asks else {}
        positions: list[list[int]] = own(inner(model), ids, **told)[0][:, 0].long().tolist()
        return positions

    def token_types(self, inputs: Collection[str], shown: Tensor) -> dict[str, Tensor]:
        """What a model with these inputs is told of tokens beside their ids: which of them are a picture's."""
        return {name: shown.long() for name in ("mm_token_type_ids", "token_type_ids") if name in inputs}

    def in_a_row(self, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs for the pictures of one prompt as the model's own `generate` takes them."""
        return pixels

    def seen_across(self, config: PreTrainedConfig, shown: Tensor) -> dict[str, Tensor]:
        """What a model that attends to pictures across is told of rows (B, L) in which these are `shown`."""
        return {}

    # ---- attention -------------------------------------------------------------------------------------------------
    def recurrent(self, config: PreTrainedConfig) -> tuple[str, ...]:
        """The kinds of layers that read a row as it stands, whatever a mask says: of Qwen3.5, LFM2 and MiniMax-M3."""
        text = config.get_text_config()
        kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or ()
        return tuple(sorted({kind for kind in kinds if IN_ORDER.search(kind)}))

    def mutual(self, model: PreTrainedModel, inputs: Collection[str]) -> bool:
        """Whether the tokens of a picture see each other both ways, in a model with these inputs."""
        text = model.config.get_text_config()
        asked = getattr(text, "use_bidirectional_attention", False)
        if asked is None or isinstance(asked, str):  # Gemma 4 says for what
            return asked in ("vision", "all")
        if not {"token_type_ids", "mm_token_type_ids"} & set(inputs):
            return False
        return _masks_both_ways(type(model).__module__)

    def masks(
        self, config: PreTrainedConfig, mask: Tensor, depth: Tensor, seen: Tensor
    ) -> Tensor | dict[str, Tensor | None]:
        """The mask (B, 1, Q, K) of each kind of layer: those with a sliding window (Gemma 3) see less of a long row.

        Where masks are told by kind, layers that read a row as it stands get None: no token of a row is left out.

        `depth` (B, Q) and `seen` (B, K) are how far tokens, and those they may see, are from the root of their row.
        """
        text = config.get_text_config()
        kinds = set(getattr(text, "layer_types", None) or ())
        window: Any = getattr(text, "sliding_window", None)
        chunk: Any = getattr(text, "attention_chunk_size", None)
        asks, asked = depth[:, None, :, None], seen[:, None, None, :]
        if not kinds:  # Mistral: all layers alike
            return mask & (asks - asked < window) if window and getattr(text, "use_sliding_window", True) else mask
        found: dict[str, Tensor | None] = {"full_attention": mask}
        if any("sliding" in kind for kind in kinds):  # of Inkling's kinds each tells of a convolution too
            found["sliding_attention"] = mask & (asks - asked < window)
        if "chunked_attention" in kinds:
            found["chunked_attention"] = mask & (asks // chunk == asked // chunk)
        unmasked = self.recurrent(config)
        whole = dict.fromkeys((*unmasked, "linear_attention") if unmasked else ())
        return whole | found if len(found) > 1 else mask


def why_apart(family: Family, config: PreTrainedConfig) -> str:
    """Why questions cannot share a row of a model; empty if they can."""
    if family.prefix:
        return "all tokens of a prompt see each other, those of a picture too: one question a row"
    kinds = family.recurrent(config)
    return f"layers of kind {' and '.join(kinds)} read a row as it stands: one answer a row" if kinds else ""


def _check_passes(model: PreTrainedModel, *, across: bool) -> None:
    """Raise `ValueError` if it is not known how pictures and words meet, or if words alone make no row of tokens."""
    if not across and not hasattr(inner(model), "get_image_features"):
        if vision_config(model.config) is model.config:
            raise ValueError(
                f"{type(model).__name__} is for text alone: its config.json has no vision_config; take the model for "
                "images and text that it belongs to"
            )
        raise ValueError(
            f"{type(model).__name__} has no get_image_features: its pictures are no tokens among the words, and how "
            "its LLM attends to them is not known here; the family needs a file, as Mllama has one"
        )
    if hasattr(inner(model), "get_image_tokens"):
        raise ValueError(
            f"{type(model).__name__} turns pictures into words of a codebook (get_image_tokens): no gradient passes "
            "through that, so there is no vision tower and no projector in which something could be unlearned"
        )
    pixels = inspect.signature(type(model).forward).parameters.get("pixel_values")
    if pixels is not None and pixels.default is inspect.Parameter.empty:
        raise ValueError(f"{type(model).__name__} asks for a picture with every text (pixel_values has no default)")


def output_head(model: PreTrainedModel) -> nn.Module:
    """What makes logits of the last hidden states: the model's own, or that of the LLM inside of it (Nemotron)."""
    parts: list[Any] = [model, *model.children()]
    heads = (part.get_output_embeddings() for part in parts if hasattr(part, "get_output_embeddings"))
    found: nn.Module | None = next((head for head in heads if head is not None), None)
    if found is None:
        raise ValueError(f"{type(model).__name__} has no output head: get_output_embeddings() names none")
    return found


def inner(model: PreTrainedModel) -> Any:
    """The model without its output head; the model itself if it has no such (Llama 4, BLIP-2)."""
    return getattr(model, "model", model)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as one that is added to scores: eager attention would add True and False as 1 and 0."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


@functools.cache  # asked whenever a batch is packed
def _masks_both_ways(module: str) -> bool:
    """Whether the module that defines a model makes masks of token types."""
    return bool(BOTH_WAYS.search(inspect.getsource(sys.modules[module])))


@functools.cache  # asked whenever pictures are encoded
def _arguments(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


class _Said:
    """The output of a model without head: its last hidden states, and None for whatever else is asked."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, _first: int) -> Tensor:
        return self.last_hidden_state

    def __getattr__(self, name: str) -> None:
        return None


def _handed_over(output: Any) -> Tensor:
    """What `get_image_features` returns for the language model, as one tensor (tokens, D)."""
    if isinstance(output, Tensor | list | tuple):
        found = [output]
    else:
        found = [value for name, value in output.items() if not name.endswith(TOWERS_OWN) and value is not None]
        found = found or [output.last_hidden_state]
    flat = [torch.cat([t.flatten(0, -2) for t in _tensors(value)]) for value in _ways(found)]
    tokens = [tensor for tensor in flat if len(tensor) == len(flat[0])]  # what else a tower tells is of no token
    return tokens[0] if len(tokens) == 1 else torch.cat(tokens, -1)


def _ways(found: list[Any]) -> Iterator[Any]:
    """Each way into the language model: a deepstack is a list of them, each with its pictures in a list or a tensor.

    Ovis hands on its words for the frame of a picture as well, in one table.
    """
    first, *more = found if not _is_deepstack(found[0]) else [None, *found]
    if first is not None:
        yield first
    for deepstack in more:
        yield from [deepstack] if isinstance(deepstack, Tensor) and deepstack.ndim < 3 else deepstack


def _is_deepstack(value: Any) -> bool:
    return isinstance(value, list | tuple) and isinstance(value[0], list | tuple)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a tensor, a list or a pair of a layer's number and a list."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


@contextmanager
def _answering(module: Any, hidden: Tensor) -> Iterator[None]:
    """Within the block, a model without head says `hidden`, whatever it is asked."""
    module.forward = lambda *_, **__: _Said(hidden)
    try:
        yield
    finally:
        del module.forward


def _has(module: nn.Module, path: str) -> bool:
    try:
        attrgetter(path)(module)
    except AttributeError:
        return False
    return True
