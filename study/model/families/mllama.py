"""Mllama (Llama 3.2 Vision, arXiv 2407.21783): a tower for tiles in two stages, a linear layer, and a LLaMA with layers
that attend across to what these say of a picture. In the row of words a picture is one token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from study.model.families._family import Family, additive, inner
from study.model.families._sides import sizes

PIXELS = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
"""What the tower is given of pictures."""


class _OfPictures(DynamicLayer):
    """Keys and values of pictures, which stay when words behind them are taken back."""

    def crop(self, tokens_to_remove: int) -> None:
        """Nothing is taken back."""


class Seen(DynamicCache):
    """Keys and values of words and, in the layers that attend across, of the pictures of each row."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        across = set(config.cross_attention_layers)
        kinds: list[Any] = [_OfPictures if i in across else DynamicLayer for i in range(config.num_hidden_layers)]
        self.layers = [kind() for kind in kinds]
        self.shown: Tensor | None = None
        """Which tokens (B, K) of the forward pass that began are placeholders, if there are pictures."""


@dataclass(frozen=True)
class Mllama(Family):
    """The whole tower is read: some states of the first stage beside the end of the second.

    A picture is a square and has one tile, but it is computed with as many as the tower has places for: the empty ones
    take part, and transformers lets the words before a picture attend to them. Rows without a picture go through the
    layers that attend across as through none: what these would read for them is 0, and they have no biases.
    """

    vision = ("vision_model",)
    projector = ("multi_modal_projector",)
    llm = ("language_model",)
    learned = ()
    state_read = None

    # ---- the tower -------------------------------------------------------------------------------------------------
    def layers(self, tower: nn.Module) -> list[nn.Module]:
        """Those of both stages."""
        stages: Any = tower
        return [*stages.transformer.layers, *stages.global_transformer.layers]

    def of_pictures(self, tower: nn.Module, state: Tensor) -> Tensor:
        """The first tile, without what fills up its tokens to a multiple of 8."""
        return state[:, : tower.num_patches]

    def side(self, image_processor: Any, config: PreTrainedConfig) -> int | None:
        """That of a tile: a larger picture would have several."""
        return int(sizes(image_processor)["height"])

    # ---- passes ----------------------------------------------------------------------------------------------------
    def across(self, config: PreTrainedConfig) -> int:
        """All tiles, each with a token of its class."""
        vision: Any = config.vision_config
        return int(vision.max_num_tiles * ((vision.image_size // vision.patch_size) ** 2 + 1))

    def cache(self, config: PreTrainedConfig) -> Cache:
        """One that knows which layers attend across."""
        return Seen(config.get_text_config())

    def image_features(
        self, model: PreTrainedModel, projectors: Sequence[nn.Module], inputs: Mapping[str, Tensor]
    ) -> Tensor:
        """What the words behind a picture attend to: its one tile."""
        return _tiles(model, projectors[0], inputs)[:, 0].flatten(0, 1)

    def hidden(self, model: PreTrainedModel, **inputs: Any) -> Tensor:
        """The last hidden states; pictures may be given where a pass begins, in the order of their placeholders."""
        pixels = {name: inputs.pop(name) for name in PIXELS if name in inputs}
        cache: Seen | None = inputs["past_key_values"]
        before = None if cache is None else cache.shown
        if not pixels and before is None:
            return super().hidden(model, **inputs)
        mask: Tensor = inputs["attention_mask"]
        visible = (mask if mask.dtype is torch.bool else mask == 0)[:, 0]  # (B, Q, K)
        states = None
        if before is None:
            shown = inputs["input_ids"] == self.image_id(model.config)
            states = _beside(_tiles(model, inner(model).multi_modal_projector, pixels), shown)
            if cache is not None:
                cache.shown = shown
        else:
            shown = F.pad(before, (0, visible.shape[-1] - before.shape[-1]))
        attends, sees = _across(visible, shown, model.config.vision_config)
        out: Tensor = (
            inner(model)
            .language_model(
                **inputs,
                cross_attention_states=states,
                cross_attention_mask=additive(attends, model.dtype),
                full_text_row_masked_out_mask=sees[:, None, :, None].to(model.dtype),
            )
            .last_hidden_state
        )
        return out

    def in_a_row(self, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        """From (pictures, 1, ...) to (1, pictures, ...)."""
        return {name: tensor.transpose(0, 1) for name, tensor in pixels.items()}

    def seen_across(self, config: PreTrainedConfig, shown: Tensor) -> dict[str, Tensor]:
        """As the stock processor writes it: the tile of the last picture, or of the last ones side by side."""
        if not shown.any():
            return {}
        causal = torch.ones(shown.shape[-1], shown.shape[-1], dtype=torch.bool, device=shown.device).tril()
        seen = _pictures(causal.expand(len(shown), -1, -1), shown)
        return {"cross_attention_mask": F.pad(seen[..., None].long(), (0, config.vision_config.max_num_tiles - 1))}


def _tiles(model: PreTrainedModel, projector: nn.Module, pixels: Mapping[str, Tensor]) -> Tensor:
    """What the LLM is given of pictures, (pictures, tiles, tokens, D)."""
    there = pixels["aspect_ratio_mask"][..., None, None, None]  # noise on a picture is none on its empty tiles
    seen = {**pixels, "pixel_values": pixels["pixel_values"] * there}
    said: Tensor = projector(inner(model).vision_model(**seen).last_hidden_state)
    return said.flatten(0, 1)


def _beside(tiles: Tensor, shown: Tensor) -> Tensor:
    """The tokens of all pictures of each row, (B, tokens, D), one picture after another; 0 where a row has fewer.

    A sharded model is given a picture that belongs to no row, so that it runs the layers that others run.
    """
    row, _ = shown.nonzero(as_tuple=True)
    places = shown.cumsum(1)[shown] - 1
    rows = tiles.new_zeros(len(shown), max(1, int(shown.sum(1).max())), *tiles.shape[1:])
    rows = rows.index_put((row, places), tiles) if len(row) else rows + 0.0 * tiles.sum()
    return rows.flatten(1, 3)


def _pictures(visible: Tensor, shown: Tensor) -> Tensor:
    """Which pictures of its row each token sees, (B, Q, pictures): the last before it, and those right before that.

    `visible` (B, Q, K) are its ancestors, of which `shown` (B, K) are placeholders.
    """
    its = visible & shown[:, None]
    words = (visible & ~shown[:, None]).cumsum(-1, dtype=torch.int32)
    last = words.masked_fill(~its, -1).amax(-1, keepdim=True)
    its = its & (words == last)
    place = (shown.cumsum(1) - 1)[:, None]
    return torch.stack([(its & (place == i)).any(-1) for i in range(max(1, int(shown.sum(1).max())))], -1)


def _across(visible: Tensor, shown: Tensor, vision: Any) -> tuple[Tensor, Tensor]:
    """The keys that each token attends to across, (B, 1, Q, keys), and which tokens see a picture, (B, Q).

    Those that see none attend to everything in their row, and nothing but attention comes of it: so transformers does.
    """
    seen = _pictures(visible, shown)
    sees = seen.any(-1)
    there = torch.arange(seen.shape[-1], device=seen.device) < shown.sum(1, keepdim=True).clamp(min=1)
    tiles = F.pad(seen[..., None], (0, vision.max_num_tiles - 1)) | (~sees[..., None] & there[:, None])[..., None]
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    return tiles.flatten(2).repeat_interleave(tokens, -1)[:, None], sees
