"""What is wrong with a dataset: the first defect as an error, or, for who wants to mend it, all of them in a list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_found: ContextVar[list[str] | None] = ContextVar("found", default=None)


@contextmanager
def collected() -> Iterator[list[str]]:
    """While this lasts, a row that cannot be read is left out and its defect added to the list that is yielded."""
    defects: list[str] = []
    token = _found.set(defects)
    try:
        yield defects
    finally:
        _found.reset(token)


@contextmanager
def one_row() -> Iterator[None]:
    """Around the reading of one row: its `ValueError` ends the reading of the dataset, unless defects are collected."""
    try:
        yield
    except ValueError as error:
        defects = _found.get()
        if defects is None:
            raise
        defects.append(str(error))
