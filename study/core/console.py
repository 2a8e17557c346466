"""The output of a study: live progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

WIDTH = 120
"""Width in characters of tables where the output is not a terminal."""

console = Console(
    file=sys.stdout,  # bound now: Tune's own prints are silenced by redirecting stdout while it runs
    highlight=False,
    soft_wrap=True,
    width=None if sys.stdout.isatty() else WIDTH,
)


class Stage:
    """The progress of one stage: `with Stage("search", 48) as stage: ... stage.advance("vkd 3 of 8")`.

    It says how long the rest will take if it goes on as so far, and with `later`, which tells the seconds of the stages
    after it, how long it is until the study ends.
    """

    def __init__(
        self, name: str, total: float, unit: str = "", later: Callable[[], float | None] | None = None
    ) -> None:
        self.name, self.total, self.unit, self.later = name, total, unit, later
        self.done = 0.0
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._said = 0.0

    def __enter__(self) -> Stage:
        self._started = time.monotonic()
        if console.is_terminal:
            columns = (TextColumn("[bold]{task.description:<10}"), BarColumn(), MofNCompleteColumn())
            tail = (TimeElapsedColumn(), TextColumn("{task.fields[last]}"))
            self._bar = Progress(*columns, *tail, console=console)
            self._task = self._bar.add_task(self.name, total=self.total, last="")
            self._bar.start()
        else:
            console.print(f"{self.name}: {self.total:g} {self.unit}".rstrip())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif error is None:
            console.print(f"{self.name}: done in {time.monotonic() - self._started:.0f} s")

    def advance(self, last: str, amount: float = 1, *, every: float = 0.0) -> None:
        """Count `amount` as done and show `last`; without a terminal, at most one line in `every` seconds."""
        self.done += amount
        if self._bar:
            self._bar.update(self._task, completed=self.done, last=last + self._left())
        elif self.done >= self.total or time.monotonic() - self._said >= every:
            self._said = time.monotonic()
            console.print(f"{self.name}: {self.done:g}/{self.total:g} {last}{self._left()}", markup=False)

    def _left(self) -> str:
        """How long the rest takes, by what is done; nothing at the beginning and at the end."""
        if not 0 < self.done < self.total:
            return ""
        rest = (time.monotonic() - self._started) / self.done * (self.total - self.done)
        later = self.later() if self.later else None
        return f", {duration(rest)} left" + (f", {duration(rest + later)} until the end of the study" if later else "")


def duration(seconds: float) -> str:
    """A length of time in its largest unit."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers are aligned right and shown with three digits after the point."""
    shown = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        numeric = all(isinstance(row[i], int | float) for row in rows) and bool(rows)
        shown.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(shown)
