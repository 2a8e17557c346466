"""How methods, attacks and groups of questions are called in tables, figures and sentences."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {"image_text": "image", "text": "text", "person": "held-out people", "fact": "held-out facts", "seen": "given"}
LONGEST = 40
"""Characters of a setting that is text, such as the words of a prompt."""


def method(label: object) -> str:
    """`npo:modality=text,lora_rank=16` as `npo (modality text, lora rank 16)`."""
    name, _, settings = str(label).partition(":")
    shown = ", ".join(pair.replace("=", " ").replace("+", " + ") for pair in settings.split(",") if pair)
    return (f"{name} ({shown})" if shown else name).replace("_", " ")


def wrapped(text: str, width: int) -> str:
    """Text in as few lines of at most `width` characters as it takes, all about as long."""
    return in_lines(text, len(textwrap.wrap(text, width)))


def in_lines(text: str, most: int) -> str:
    """Text in at most `most` lines, as short as they can be."""
    width = max(map(len, text.split()), default=1)
    while len(textwrap.wrap(text, width)) > max(1, most):
        width += 1
    return "\n".join(textwrap.wrap(text, width))


def listed(texts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def differing(attacks: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """A readable name for each attack key, from its kind and settings: the kind and what differs among its like."""
    flat = {key: leaves(settings) for key, (_, settings) in attacks.items()}
    values: dict[str, dict[str, set[str]]] = {}
    for key, (kind, _) in attacks.items():
        for name, value in flat[key].items():
            values.setdefault(kind, {}).setdefault(name, set()).add(repr(value))
    found: dict[str, str] = {}
    for key, (kind, _) in sorted(attacks.items(), key=lambda item: (item[1][0], item[0])):
        varied = [name for name in flat[key] if len(values[kind][name]) > 1]
        shown = [f"{name.replace('_', ' ')} {plain(flat[key][name])}" for name in varied]
        text = ", ".join([kind.replace("_", " "), *shown])
        found[key] = text if text not in found.values() else f"{text} ({key[:4]})"
    return found


def leaves(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings as one level: those of a schedule stand beside the attack's own."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= leaves(value)
        elif key != "type":
            flat[key] = value
    return flat


def plain(value: object) -> str:
    """A setting as people write it: few digits, members joined, long words cut."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " + ".join(map(plain, value)) or "none"
    if isinstance(value, float):
        return f"{value:.3g}"
    return textwrap.shorten(str(value), LONGEST, placeholder=" ...")
