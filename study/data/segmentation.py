"""Texts cut into words in any script."""

from __future__ import annotations

import unicodedata
from functools import cache

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts that put no space between words, as the names of their characters begin: each character is a word."""


def segmented(text: str, signs: tuple[str, ...] = UNSPACED) -> list[str]:
    """The words of a text, whose case and composition are the caller's; single characters in the scripts `signs`."""
    found: list[str] = []
    before = "gap"
    for character in text:
        kind = _kind(character, signs)
        if kind == "mark" and before != "gap":
            found[-1] += character
            continue
        if kind == "letter" and before == "letter":
            found[-1] += character
        elif kind in ("letter", "sign"):
            found.append(character)
        before = "gap" if kind == "mark" else kind
    return found


@cache
def _kind(character: str, signs: tuple[str, ...]) -> str:
    """`letter` (or digit), `sign` of a script without spaces, `mark` on what stands before it, or `gap`."""
    category = unicodedata.category(character)
    if category[0] == "M" or category == "Cf":
        return "mark"
    if category[0] not in "LN":
        return "gap"
    return "sign" if unicodedata.name(character, "").startswith(signs) else "letter"
