"""Where the parts of a model are that no file describes, from its structure alone: no weights are needed and none run.

The tower and the LLM are what transformers says they are. Whatever else stands beside them on the way to them is the
projector, in one piece or several; if nothing does, it is what stands in the tower behind its layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ELSEWHERE = re.compile("audio|video|speech|talker|token2wav|generation|vqmodel|lm_head|score")
"""In the names of modules that neither read a picture nor tell the language model of it."""
SECOND_TOWER = re.compile("vision_model|vision_tower|vision_encoder|image_tower")
"""In the names of modules that are vision although `get_encoder` names another one (DeepSeek-VL's hybrids)."""


def tower_path(model: PreTrainedModel) -> str:
    """Where the vision tower is; empty if there is none."""
    return _path_of(model, model.get_encoder(modality="image"))


def llm_path(model: PreTrainedModel) -> str:
    """Where the decoder with the layers of the language model is; empty if there is none."""
    decoder: nn.Module | None = model.get_decoder()
    path = _path_of(model, decoder)
    while path and not isinstance(getattr(decoder, "layers", None), nn.ModuleList):
        step = next((name for name in ("model", "decoder", "transformer") if hasattr(decoder, name)), "")
        if not step:
            return ""
        decoder, path = getattr(decoder, step), f"{path}.{step}"
    return path


def _path_of(model: nn.Module, wanted: nn.Module | None) -> str:
    """The name of a module in the model; empty if it is the model itself or not in it."""
    return next((name for name, module in model.named_modules() if module is wanted), "")


def projector_pieces(model: nn.Module, tower: str, llm: str) -> list[str]:
    """Modules and parameters that belong to the projector, the most telling first."""
    beside = [name for name in _beside(model, tower, llm) if not SECOND_TOWER.search(name)]
    found = beside or [f"{tower}.{name}" for name in _behind_layers(model.get_submodule(tower))]
    return sorted(found, key=lambda name: _weight(model, name), reverse=True)


def second_towers(model: nn.Module, tower: str, llm: str) -> list[str]:
    """Further modules that see pictures."""
    return [name for name in _beside(model, tower, llm) if SECOND_TOWER.search(name)]


def layer_list(tower: nn.Module) -> list[nn.Module]:
    """The layers of a tower: the longest of its lists, the first of those; the tower itself if it has none.

    A list within another is not asked: stages come before the blocks of each.
    """
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList) and _size(module)]
    within = {id(inner) for module in lists for inner in module.modules() if inner is not module}
    return list(max((module for module in lists if id(module) not in within), key=len, default=[tower]))


def _beside(model: nn.Module, tower: str, llm: str) -> Iterator[str]:
    """What stands beside the way from the model to its tower, and has parameters."""
    steps = tower.split(".")
    for depth in range(len(steps)):
        above = ".".join(steps[:depth])
        owner = model.get_submodule(above)
        its: dict[str, nn.Module | nn.Parameter] = {**dict(owner.named_children()), **owner._parameters}  # type: ignore[dict-item]
        for name, child in its.items():
            path = f"{above}.{name}" if above else name
            on_the_way = any(f"{part}.".startswith(f"{path}.") for part in (tower, llm))
            if child is not None and not on_the_way and not ELSEWHERE.search(name) and _size(child):
                yield path


def _behind_layers(tower: nn.Module) -> list[str]:
    """The children of a tower that are defined behind its layers and can change a width: mergers, not norms."""
    layers = layer_list(tower)[0]
    children = dict(tower.named_children())
    holding = [name for name, child in children.items() if any(module is layers for module in child.modules())]
    behind = list(children)[list(children).index(holding[0]) + 1 :] if holding else []
    return [name for name in behind if any(isinstance(m, nn.Linear | nn.Conv2d) for m in children[name].modules())]


def _weight(model: nn.Module, name: str) -> tuple[bool, int]:
    """A module of its own class says more than one of torch's, that more than a parameter, then the larger one."""
    owner, _, last = name.rpartition(".")
    found = getattr(model.get_submodule(owner), last)
    return isinstance(found, nn.Module) and not type(found).__module__.startswith("torch."), _size(found)


def _size(found: nn.Module | nn.Parameter) -> int:
    return found.numel() if isinstance(found, nn.Parameter) else sum(p.numel() for p in found.parameters())
