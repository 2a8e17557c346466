"""What replays of the authors' evaluation codes share: digests of what is asked, and draws that depend on it alone."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from PIL import Image

from study.data.official_protocol import OfficialPrompt


def digest(text: str, images: Sequence[Image.Image] = ()) -> str:
    """Twelve hexadecimal digits of a prompt's text and of the pixels that are shown with it."""
    found = hashlib.sha256(text.encode())
    for image in images:
        found.update(f"{image.mode} {image.size}".encode() + image.tobytes())
    return found.hexdigest()[:12]


def prompts_of(asks: Iterable[OfficialPrompt]) -> dict[str, list[str]]:
    """The digests of what is asked of each set and task, in order of the digests: authors ask in their own order."""
    found: dict[str, list[str]] = defaultdict(list)
    for ask in asks:
        shown = [picture.open() for picture in ask.pictures]
        found[f"{ask.question.role} {ask.question.task}"].append(digest(ask.text, shown))
    return {key: sorted(its) for key, its in found.items()}


def drawn(text: str, among: Sequence[str]) -> str:
    """What is said to a prompt in place of a model: one of several things, by its text alone."""
    return among[int(hashlib.sha256(text.encode()).hexdigest(), 16) % len(among)]


def spelled(ids: Sequence[int]) -> str:
    """Tokens as a text."""
    return " ".join(map(str, ids))


def seen(ids: Sequence[int], image: int) -> tuple[int, ...]:
    """Tokens with one for each picture, as processors that leave pictures to the model write them."""
    return tuple(
        token for before, token in zip((None, *ids[:-1]), ids, strict=True) if before != token or token != image
    )


def share(text: str) -> float:
    """A number in [0, 1) that depends on a text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8
