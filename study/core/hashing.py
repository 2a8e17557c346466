"""Canonical content and its digests: equal content, equal key, on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Json = Any
ADDED = {"content": "if set"}
"""The metadata of a field that was added later: at its default it is no part of the content, so that keys stay."""


def canonical(value: object) -> Json:
    """`value` as plain JSON: dataclasses become objects that name their type, without fields that are excluded from
    comparison or are `ADDED` and at their default; sets are sorted.

    Raises `TypeError` for a value that has no such form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        there = {f: getattr(value, f.name) for f in dataclasses.fields(value) if f.compare}
        fields = {f.name: canonical(v) for f, v in there.items() if not (_is_added(f) and v == f.default)}
        return {"type": type(value).__name__, **fields}
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


def _is_added(field: dataclasses.Field[Any]) -> bool:
    return field.metadata.get("content") == ADDED["content"]


def content_key(value: object) -> str:
    """Twelve hexadecimal digits of the content of `value`: equal content, equal key, on every machine."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
