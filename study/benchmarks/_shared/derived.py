"""What some datasets lack and is built of what they have, so that the same data gives the same questions everywhere."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

from study.core.terms import Modality
from study.data.benchmark import Question

FRAMES: dict[Modality, str] = {
    "image_text": "Look at the picture once more and answer this. ",
    "text": "Here is something that I would like to know. ",
}


def reworded(question: Question) -> Question:
    """A test question where a dataset has no rewritten ones: the same behind a sentence that no lesson has.

    This is less than a paraphrase. It asks whether what is gone is gone for more than the very words that were taught.
    """
    rest = question.id.partition("/")[2]
    return replace(question, id=f"test/{rest}", role="test", prompt=FRAMES[question.modality] + question.prompt)


def mixed(right: str, wrong: Iterable[str], seed: str) -> tuple[str, ...]:
    """The options of a choice, each once, in an order that does not tell which is right; drawn by `seed`, a text."""
    options = list(dict.fromkeys((right, *wrong)))
    random.Random(seed).shuffle(options)
    return tuple(options)
