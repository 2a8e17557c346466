"""What is searched for composed attacks: the spaces of their links, side by side.

Each parameter is prefixed with its link. A link that has no search space stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from optuna.trial import BaseTrial

from study.attacks.chain import Chain
from study.contracts import Attack
from study.core.plugins import known_spaces, name_of, search_space
from study.core.specs import link_prefix


def space(trial: BaseTrial, default: Chain) -> Chain:
    """A proposal around the preset's defaults."""
    return Chain(tuple(_link(trial, at, link) for at, link in enumerate(default.links, 1)))


def _link(trial: BaseTrial, position: int, default: Attack) -> Attack:
    name = name_of(default)
    if name not in known_spaces():
        return default
    own = cast(BaseTrial, _Prefixed(trial, link_prefix(position, name)))  # a space asks a trial for nothing else
    proposed: Attack = search_space(name).space(own, default)
    return proposed


class _Prefixed:
    """What a search space asks a trial for, under longer names."""

    def __init__(self, trial: BaseTrial, prefix: str) -> None:
        self.trial, self.prefix = trial, prefix

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.trial.suggest_float(self.prefix + name, low, high, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return self.trial.suggest_int(self.prefix + name, low, high, log=log)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self.trial.suggest_categorical(self.prefix + name, choices)
