"""How parts of a model are searched: as text such as vision+projector, the way the command line writes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import cast

from optuna.trial import BaseTrial

from study.core.terms import PARTS, Part


def parts(trial: BaseTrial, name: str, among: Sequence[Part] = PARTS, *, none: bool = False) -> tuple[Part, ...]:
    """One or more of the parts, every combination; or, with `none`, none of them."""
    some = [chosen for count in range(0 if none else 1, len(among) + 1) for chosen in combinations(among, count)]
    text = trial.suggest_categorical(name, ["+".join(chosen) for chosen in some])
    return cast(tuple[Part, ...], tuple(filter(None, text.split("+"))))
