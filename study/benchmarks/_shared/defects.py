"""What is wrong with a dataset: told all at once, but for what its authors' own loader passes over, which is skipped.

A `Tolerated` defect is one that the authors' code meets without an end: the row, lesson or question is left out,
counted and listed. Whatever else is wrong, or would leave somebody without questions, ends the reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from study.data.benchmark import Benchmark

MOST_TOLD = 50
"""Defects that one error lists: as many as somebody reads."""


class Tolerated(ValueError):
    """Something wrong that the authors' own loader passes over."""


@dataclass
class Reading:
    """What one reading of a dataset has met."""

    rows: int = 0
    skipped: list[str] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)

    def of(self, benchmark: Benchmark) -> Benchmark:
        """The benchmark with what was skipped to make it."""
        return replace(benchmark, skipped=tuple(self.skipped), rows=self.rows)


_reading: ContextVar[Reading | None] = ContextVar("reading", default=None)
_listed: ContextVar[list[str] | None] = ContextVar("listed", default=None)
_strict: ContextVar[bool] = ContextVar("strict", default=False)


@contextmanager
def strict_data(strict: bool = True) -> Iterator[None]:
    """Within the block nothing is tolerated: every defect is an error."""
    token = _strict.set(strict)
    try:
        yield
    finally:
        _strict.reset(token)


@contextmanager
def collected() -> Iterator[list[str]]:
    """While this lasts, a row that cannot be read is left out and its defect added to the list that is yielded."""
    defects: list[str] = []
    token = _listed.set(defects)
    try:
        yield defects
    finally:
        _listed.reset(token)


@contextmanager
def reading() -> Iterator[Reading]:
    """Around the reading of a dataset: at its end all defects are raised in one `ValueError`, unless `collected`."""
    found = Reading()
    token = _reading.set(found)
    try:
        yield found
    except ValueError as error:
        _tell(found, str(error))
        raise
    finally:
        _reading.reset(token)
    _tell(found)


@contextmanager
def one_row() -> Iterator[None]:
    """Around one row, lesson or question: its `ValueError` leaves it out; what that means is said when all is read."""
    try:
        yield
    except ValueError as error:
        found = _reading.get()
        if found is None:
            raise
        tolerated = isinstance(error, Tolerated) and not _strict.get()
        (found.skipped if tolerated else found.defects).append(str(error))


@contextmanager
def needed() -> Iterator[None]:
    """Around what must not be skipped, because somebody would be left without lessons or questions."""
    try:
        yield
    except Tolerated as error:
        raise ValueError(str(error)) from error


def skip(problem: str) -> None:
    """Note something that is passed over, where nothing has to be left out for it. As `one_row` around an error."""
    with one_row():
        raise Tolerated(problem)


def count_row() -> None:
    """Count a row that is read."""
    if (found := _reading.get()) is not None:
        found.rows += 1


def _tell(found: Reading, last: str = "") -> None:
    """Raise all defects in one error, with the `last` that ended the reading; or list them for who collects.

    What was skipped is told with them: somebody may lack just that.
    """
    listed = _listed.get()
    if listed is not None:
        listed += found.defects
    elif found.defects or (last and found.skipped):
        every = [*found.defects, *([last] if last else []), *found.skipped]
        first, *others = every
        rest = [f"and {len(others) - MOST_TOLD} further ones"] if len(others) > MOST_TOLD else []
        lines = "".join(f"\n- {line}" for line in [*others[:MOST_TOLD], *rest])
        raise ValueError(f"{first}\n{len(others)} more:{lines}" if others else first)
