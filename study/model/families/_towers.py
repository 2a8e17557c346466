"""The layers of a vision tower: which of them the model reads, and what becomes of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from study.model.families._family import family_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def read_layers(tower: nn.Module, config: PreTrainedConfig) -> list[nn.Module]:
    """The layers of a vision tower whose output the model reads, first to last; LLaVA ignores those at the end.

    Raises `ValueError` if it reads what no layer makes.
    """
    family = family_of(config.model_type)
    layers, states = family.layers(tower), family.states_read(config) or (-1,)
    if outside := [i for i in states if not -len(layers) - 1 <= i <= len(layers)]:
        raise ValueError(
            f"{family.state_read}={outside[0]}, and the vision tower has {len(layers)} layers: take config.json from "
            "where the model was published"
        )
    return layers[: max(i if i >= 0 else len(layers) + 1 + i for i in states)]


def skip_unread(tower: nn.Module, config: PreTrainedConfig) -> None:
    """Let the layers of a vision tower whose output the model does not read hand on what they are given, at no cost.

    They keep their weights and their place among the hidden states, which the model may count from the end.
    """
    for layer in family_of(config.model_type).layers(tower)[len(read_layers(tower, config)) :]:
        layer.forward = _handed_on


def _handed_on(hidden_states: Tensor, *_: object, **__: object) -> Tensor:
    return hidden_states


def unread(tower: nn.Module, config: PreTrainedConfig) -> frozenset[str]:
    """The tower's parameters that no gradient reaches, by their name in the tower.

    LLaVA's kin take the hidden state after a layer: what is defined after that layer (further layers, a final norm, a
    pooling head) is dropped. All others read their tower to the end.
    """
    if family_of(config.model_type).states_read(config) is None:
        return frozenset()
    names = [name for name, _ in tower.named_parameters()]
    last = {id(weight) for weight in read_layers(tower, config)[-1].parameters()}
    end = max(i for i, weight in enumerate(tower.parameters()) if id(weight) in last)
    return frozenset(names[end + 1 :])
