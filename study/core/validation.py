"""Checks of a dataclass's fields, each an error that names the field and its value."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints


def not_negative(settings: object, *names: str) -> None:
    """Raise `ValueError` unless each field is at least 0 and not NaN."""
    for name, value in _values(settings, names):
        if not value >= 0:
            raise ValueError(f"{name}={value!r}: must not be negative")


def each_once(settings: object, *names: str) -> None:
    """Raise `ValueError` unless each field holds at least one value, and none twice."""
    for name, value in _values(settings, names):
        if not value or len(set(value)) < len(value):
            raise ValueError(f"{name}={value!r}: give at least one, and each once")


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
    """Raise `ValueError` unless each field of a dataclass that is annotated with a `Literal` is one of its choices.

    In a field that is a tuple of such, each member must be one.
    """
    kind: type = type(settings)
    assert is_dataclass(settings)
    for name, (choices, several) in _choices(kind).items():
        value = getattr(settings, name)
        if not set(value if several else (value,)) <= set(choices):
            raise ValueError(f"{name}={value!r}: choose among {', '.join(map(str, choices))}")


@cache
def _choices(kind: type) -> dict[str, tuple[tuple[Any, ...], bool]]:
    """The fields that have choices, with these and whether the field is a tuple of such; looked up once for a class."""
    annotations, found = get_type_hints(kind), {}
    for field in fields(kind):
        annotation = annotations[field.name]
        several = get_origin(annotation) is tuple
        one = get_args(annotation)[0] if several and get_args(annotation) else annotation
        if get_origin(one) is Literal:
            found[field.name] = get_args(one), several
    return found


def _values(settings: object, names: Collection[str]) -> list[tuple[str, Any]]:
    return [(name, getattr(settings, name)) for name in names]
