"""Checks of a dataclass's fields, each an error that names the field and its value."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


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


def choice(settings: object, name: str, choices: Collection[Any]) -> None:
    """Raise `ValueError` unless the field is one of `choices`."""
    value = getattr(settings, name)
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose among {', '.join(map(str, choices))}")


def _values(settings: object, names: Collection[str]) -> list[tuple[str, Any]]:
    return [(name, getattr(settings, name)) for name in names]
