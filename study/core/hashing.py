"""Canonical content and its digests: equal content, equal key, on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

Json = Any
BEFORE = "before"


class Keyed(Protocol):
    """Something that is identified by its content: of equal keys, one is run."""

    @property
    def key(self) -> str:
        """The key of the content."""
        ...


def before(value: object) -> dict[str, object]:
    """The metadata of a dataclass field that older content lacks, where all was as it is with `value`.

    With that value the field is left out of the canonical form, so that the keys of older content stay.
    """
    return {BEFORE: value}


def canonical(value: object) -> Json:
    """`value` as plain JSON: dataclasses become objects that name their type, without fields that are excluded from
    comparison, and without later ones that have the value from `before`; sets are sorted.

    Raises `TypeError` for a value that has no such form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value) if f.compare and not _as_before(f, getattr(value, f.name))]
        return {"type": type(value).__name__, **{name: canonical(getattr(value, name)) for name in names}}
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, set | frozenset):
        return sorted(canonical(v) for v in value)
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{value!r} has no canonical form: use dataclasses, mappings, sequences and plain values")


def _as_before(field: dataclasses.Field[Any], value: object) -> bool:
    return BEFORE in field.metadata and bool(field.metadata[BEFORE] == value)


def content_key(value: object) -> str:
    """Twelve hexadecimal digits of the content of `value`: equal content, equal key, on every machine."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
