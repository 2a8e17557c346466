"""Low-rank adapters (LoRA, arXiv 2106.09685) for the one training loop: put in, trained, merged, taken out again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import LoraConfig
from peft.tuners import lora
from torch import Tensor, nn

from study.core.errors import Refused
from study.model.adapter import Adapter
from study.model.families import output_head
from study.model.vlm import VLM, is_product


class _Adapted(lora.Linear):
    """A linear layer with its one adapter, called "default".

    It computes what peft's own does, which also asks at each call which of several adapters are active or merged: a few
    percent of a step of a small model.
    """

    def forward(self, x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """W x + alpha / rank * B A dropout(x), in the type of W x."""
        out: Tensor = self.base_layer(x)
        down, up, dropped = (cast(Any, modules)["default"] for modules in (self.lora_A, self.lora_B, self.lora_dropout))
        moved, scale = up(down(dropped(x.to(down.weight.dtype)))), self.scaling["default"]
        result: Tensor = out + (moved if scale == 1 else moved * scale)
        return result.to(out.dtype)


class _OfLayers(lora.LoraModel):
    """Adapts the layers of these names and nothing else.

    Of some models whose experts became parameters (GLM-4.5V), peft takes names for those of former experts.
    """

    def __init__(self, model: nn.Module, config: LoraConfig, layers: Collection[str]) -> None:
        self._layers = frozenset(layers)  # asked while the rest is initialized
        super().__init__(model, config, "default")

    def _check_target_module_exists(self, _config: LoraConfig, name: str) -> bool:  # type: ignore[override]
        return name in self._layers


@contextmanager
def lora_adapters(
    vlm: VLM, names: Collection[str], *, rank: int, alpha: int, dropout: float, seed: int
) -> Iterator[dict[str, nn.Parameter]]:
    """Lend the adapters of every linear layer whose weight is in `names`, by name; W + alpha / rank * B A is what runs.

    The output head is left alone, as in the recipes of the field. When the block ends, the adapters are merged into
    the weights and gone, so that whoever scores or attacks the model meets an ordinary one; `VLM.adapters` has their
    factors. They are float32 on a bfloat16 model too, where most steps at the usual rates would be lost to rounding.
    Raises `Refused` if no linear layer is among `names`.
    """
    model = vlm.model
    head = output_head(model)
    layers = [
        name
        for name, module in model.named_modules()
        if is_product(module) and f"{name}.weight" in names and module is not head
    ]
    if not layers:
        raise Refused(f"lora_rank={rank}: there is no linear layer to adapt; set it to 0")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=["chosen"])
    config._register_custom_module({nn.Linear: _Adapted})
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        adapters = _OfLayers(model, config, layers)
        adapters._cast_adapter_dtype("default")  # what peft does for a model that it wraps itself
    try:
        yield {name: p for name, p in model.named_parameters() if ".lora_" in name}
    finally:
        merged = _taken(model)
        adapters.unload()
        weights = dict(model.named_parameters())
        for name, adapter in merged.items():
            adapter.merge_into(weights[name])
        vlm.adapters.update(merged)


def _taken(model: nn.Module) -> dict[str, Adapter]:
    """The adapters in a model, by the names of the weights that they change; shapes alone have none."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, _Adapted) and not module.base_layer.weight.is_meta:
            down, up = (
                cast(Any, modules)["default"].weight.detach().cpu() for modules in (module.lora_A, module.lora_B)
            )
            found[f"{name}.weight"] = Adapter(down, up, module.scaling["default"])
    return found
