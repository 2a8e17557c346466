"""Checks of a dataclass's fields, each an error that names the field and its value."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints


def not_negative(settings: object, *names: str) -> None:
    """Raise `ValueError` unless each field is at least 0 and not NaN."""
    for name, value in _values(settings, names):
        if not value >= 0:
            raise ValueError(f"{name}={value!r}: must not be negative")


def positive(settings: object, *names: str) -> None:
    """Raise `ValueError` unless each field is above 0 and not NaN."""
    for name, value in _values(settings, names):
        if not value > 0:
            raise ValueError(f"{name}={value!r}: use a positive number")


def share(settings: object, *names: str) -> None:
    """Raise `ValueError` unless each field is a fraction above 0 and at most 1."""
    for name, value in _values(settings, names):
        if not 0 < value <= 1:
            raise ValueError(f"{name}={value!r}: use a fraction above 0 and at most 1")


def fraction(settings: object, *names: str) -> None:
    """Raise `ValueError` unless each field is a fraction from 0 to 1."""
    for name, value in _values(settings, names):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value!r}: use a fraction from 0 to 1")


def check_literals(settings: object) -> None:
    """Raise `ValueError` unless each field of a dataclass that is annotated with a `Literal` is one of its choices."""
    assert is_dataclass(settings)
    annotations = get_type_hints(type(settings))
    for field in fields(settings):
        choices = get_args(annotations[field.name]) if get_origin(annotations[field.name]) is Literal else ()
        value = getattr(settings, field.name)
        if choices and value not in choices:
            raise ValueError(f"{field.name}={value!r}: choose among {', '.join(map(str, choices))}")


def _values(settings: object, names: Collection[str]) -> list[tuple[str, Any]]:
    return [(name, getattr(settings, name)) for name in names]
