"""The output of a study: live progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
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
    """The progress of one stage: `with Stage("search", 48) as stage: ... stage.advance("vkd 3 of 8")`."""

    def __init__(self, name: str, total: float, unit: str = "") -> None:
        self.name, self.total, self.unit = name, total, unit
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
            self._bar.update(self._task, completed=self.done, last=last)
        elif self.done >= self.total or time.monotonic() - self._said >= every:
            self._said = time.monotonic()
            console.print(f"{self.name}: {self.done:g}/{self.total:g} {last}", markup=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers are aligned right and shown with three digits after the point."""
    shown = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        numeric = all(isinstance(row[i], int | float) for row in rows) and bool(rows)
        shown.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(shown)
