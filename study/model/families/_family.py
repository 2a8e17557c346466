"""What can be said of a family of multimodal LLMs, and what is assumed of a model that has no file here."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from study.core.plugins import find, known
from study.core.terms import Part
from study.model.families._sides import side_within_areas, side_within_edges

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.processing_utils import ProcessorMixin


@functools.cache  # asked at every forward pass
def family_of(model_type: str) -> Family:
    """The family whose file is called like a `model_type`, or the general one."""
    family: Family = find("families", model_type)() if model_type in known("families") else Family()
    return family


@dataclass(frozen=True)
class Family:
    """Any model for images and text: its parts are looked for by their usual names, and the rest by what it has.

    What is looked for here, the file of a family states.
    """

    vision: ClassVar[tuple[str, ...]] = ("vision_tower", "vision_model", "visual")
    """Where under `.model` the tower is: the first of these that is there. So for the other parts."""
    projector: ClassVar[tuple[str, ...]] = ("multi_modal_projector", "connector", "visual.merger")
    llm: ClassVar[tuple[str, ...]] = ("language_model", "text_model")
    learned: ClassVar[tuple[str, ...]] = ("image_newline",)
    """Parameters under `.model` that count as the projector: projected tokens that are learned."""
    state_read: ClassVar[str | None] = "vision_feature_layer"
    """What the configuration calls the index of the hidden states that the projector reads; None if it has no such."""
    processor: ClassVar[type[ProcessorMixin] | None] = None
    """The class of the processor, where `AutoProcessor` finds none."""
    neurons: ClassVar[tuple[tuple[tuple[str, ...], str], ...]] = (
        (("fc1",), "fc2"),  # the towers of CLIP, SigLIP, Idefics and Qwen2-VL
        (("gate_proj", "up_proj"), "down_proj"),  # every language model, Qwen2.5-VL's tower, Idefics2's connector
        (("linear_1",), "linear_2"),  # LLaVA's projector
        (("0",), "2"),  # Qwen's merger
    )
    """The linear layers into and out of the neurons of an MLP."""

    # ---- parts -----------------------------------------------------------------------------------------------------
    def parts(self, model: PreTrainedModel) -> dict[Part, str]:
        """The module of each part. Raises `ValueError` naming the model's class if it lacks one."""
        found: dict[Part, str] = {}
        wanted: dict[Part, tuple[str, ...]] = {"vision": self.vision, "projector": self.projector, "llm": self.llm}
        for part, names in wanted.items():
            there = [f"model.{name}" for name in names if _has(model.model, name)]
            if not there:
                raise ValueError(f"{type(model).__name__} has no {part}: looked for {', '.join(names)} under .model")
            found[part] = there[0]
        return found

    def part_of(self, name: str, parts: Mapping[Part, str]) -> Part:
        """The part that a parameter belongs to; whatever is neither tower nor projector counts as the LLM."""
        if name.startswith(f"{parts['projector']}.") or name in {f"model.{learned}" for learned in self.learned}:
            return "projector"  # asked first: Qwen's lies inside the tower
        return "vision" if name.startswith(f"{parts['vision']}.") else "llm"

    # ---- the tower -------------------------------------------------------------------------------------------------
    def layers(self, tower: nn.Module) -> list[nn.Module]:
        """All layers of the tower, first to last."""
        return next(list(module) for module in tower.modules() if isinstance(module, nn.ModuleList))

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
        width = getattr(vision, "embed_dim", None) or vision.hidden_size
        return width, getattr(vision, "intermediate_size", None) or int(width * vision.mlp_ratio)

    # ---- pictures --------------------------------------------------------------------------------------------------
    def keep_whole(self, image_processor: Any) -> None:
        """Have every picture prepared as one, where it would be cut into several."""
        if hasattr(image_processor, "do_image_splitting"):
            image_processor.do_image_splitting = False

    def side(self, image_processor: Any, config: PreTrainedConfig) -> int | None:
        """The side in pixels of the square that every picture is brought to first; None if the processor sees to it.

        Qwen, Idefics and LLaVA-NeXT give pictures of different shapes different numbers of tokens. In a study all take
        the same: the side nearest to `SIDE` that the processor's own limits allow, or the tower's own for those that
        have one (Idefics3, LLaVA-NeXT).
        """
        if hasattr(image_processor, "merge_size"):
            return side_within_areas(image_processor)
        if hasattr(image_processor, "max_image_size"):
            return int(image_processor.max_image_size["longest_edge"])
        if hasattr(image_processor, "do_image_splitting"):
            return side_within_edges(image_processor, config)
        if hasattr(image_processor, "image_grid_pinpoints"):
            return int(config.vision_config.image_size)
        return None

    # ---- prompts ---------------------------------------------------------------------------------------------------
    def image_id(self, config: PreTrainedConfig) -> int:
        """The placeholder token of a picture."""
        return int(config.image_token_id)

    def turn(self, prompt: str, with_picture: bool) -> dict[str, Any]:
        """What a user says, for the chat template: the picture first, so that all questions about it can share it."""
        content = [{"type": "image"}] * with_picture + [{"type": "text", "text": prompt}]
        return {"role": "user", "content": content}

    def reply(self, text: str) -> dict[str, Any]:
        """What the assistant said before, for the chat template."""
        return {"role": "assistant", "content": [{"type": "text", "text": text}]}

    def axes(self, model: PreTrainedModel) -> int:
        """How many positions a token has: 1, or 3 if the model tells those of pictures (M-RoPE of Qwen)."""
        return 3 if hasattr(model.model, "get_rope_index") else 1

    def positions(
        self, model: PreTrainedModel, ids: Tensor, shown: Tensor, pixels: Mapping[str, Tensor]
    ) -> list[list[int]]:
        """The positions, 3 rows, of tokens (1, L); those that are `shown` belong to a picture with these pixels."""
        inner: Any = model.model
        found = inner.get_rope_index(ids, shown.long(), image_grid_thw=pixels["image_grid_thw"].cpu())[0]
        positions: list[list[int]] = found[:, 0].tolist()
        return positions

    def token_types(self, inputs: Collection[str], shown: Tensor) -> dict[str, Tensor]:
        """What a model with these inputs is told of tokens beside their ids: which of them are a picture's."""
        return {name: shown.long() for name in ("mm_token_type_ids", "token_type_ids") if name in inputs}

    # ---- attention -------------------------------------------------------------------------------------------------
    def mutual(self, inputs: Collection[str]) -> bool:
        """Whether the tokens of a picture see each other both ways, in a model with these inputs."""
        return "token_type_ids" in inputs

    def masks(
        self, config: PreTrainedConfig, mask: Tensor, positions: Tensor, seen: Tensor
    ) -> Tensor | dict[str, Tensor]:
        """The mask (B, 1, Q, K) of each kind of layer: those with a sliding window (Gemma 3) see less of a long row.

        `positions` (B, Q) and `seen` (B, K) are how far tokens, and those they may see, are from the root of their row.
        """
        text = config.get_text_config()
        if "sliding_attention" not in (getattr(text, "layer_types", None) or ()):
            return mask
        near = positions[:, None, :, None] - seen[:, None, None, :] < text.sliding_window
        return {"full_attention": mask, "sliding_attention": mask & near}


def _has(module: nn.Module, path: str) -> bool:
    try:
        attrgetter(path)(module)
    except AttributeError:
        return False
    return True
