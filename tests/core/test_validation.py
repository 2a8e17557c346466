"""The checks of fields: what they let pass, and that an error names the field and its value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar, Literal

import pytest

from study.core import validation

NUMBERS = (-math.inf, -1.0, 0, 0.0, 1e-9, 0.5, 1, 1.5, math.inf, math.nan)


@pytest.mark.parametrize(
    ("check", "fine"),
    [
        (validation.not_negative, {0, 1e-9, 0.5, 1, 1.5, math.inf}),
        (validation.positive, {1e-9, 0.5, 1, 1.5, math.inf}),
        (validation.share, {1e-9, 0.5, 1}),
        (validation.fraction, {0, 1e-9, 0.5, 1}),
    ],
)
def test_a_number_passes_or_is_named(check: Callable[..., None], fine: set[float]) -> None:
    for value in NUMBERS:
        settings = SimpleNamespace(weight=value, other=1)
        if value in fine:
            check(settings, "other", "weight")
        else:
            with pytest.raises(ValueError, match=f"^weight={value!r}: "):
                check(settings, "other", "weight")


def test_a_field_that_is_not_named_is_not_checked() -> None:
    validation.positive(SimpleNamespace(weight=1, other=-1), "weight")


Form = Literal["idk", "dpo"]


@dataclass
class Chosen:
    """Fields with choices, named or written out, and others."""

    form: Form = "idk"
    rank: Literal[0, 16] = 0
    name: str = "anything"
    forms: tuple[Form, ...] = ("idk",)
    sizes: tuple[int, ...] = ()
    kind: ClassVar[Literal["a"]] = "a"


def test_a_choice_is_one_of_its_choices() -> None:
    validation.check_literals(Chosen())
    validation.check_literals(Chosen("dpo", 16, "else"))
    with pytest.raises(ValueError, match=r"^form='pdo': choose among idk, dpo$"):
        validation.check_literals(Chosen("pdo"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^rank=8: choose among 0, 16$"):
        validation.check_literals(Chosen(rank=8))  # type: ignore[arg-type]


def test_every_member_of_a_tuple_of_choices_is_one_of_them() -> None:
    validation.check_literals(Chosen(forms=("dpo", "idk"), sizes=(7,)))
    validation.check_literals(Chosen(forms=()))
    with pytest.raises(ValueError, match=r"^forms=\('idk', 'pdo'\): choose among idk, dpo$"):
        validation.check_literals(Chosen(forms=("idk", "pdo")))  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "fine"), [(("a",), True), (("a", "b"), True), ((), False), (("a", "a"), False)])
def test_each_once_means_at_least_one_and_none_twice(value: tuple[str, ...], fine: bool) -> None:
    if fine:
        validation.each_once(SimpleNamespace(kinds=value), "kinds")
    else:
        with pytest.raises(ValueError, match=r"^kinds=\(.*at least one, and each once$"):
            validation.each_once(SimpleNamespace(kinds=value), "kinds")
