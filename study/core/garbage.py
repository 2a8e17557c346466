"""Looks for garbage less often, where much is made and hardly anything thrown away."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 50_000
"""New objects between two looks: a report takes 30 MB more with so many. With Python's few hundred, which make it look
through everything that was imported again and again, a report or a plan spends a tenth of its time on that."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """A block, or a function that it decorates, in which garbage in cycles is looked for seldom."""
    before = gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
