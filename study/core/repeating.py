"""What a thread of its own does again and again while something else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(work: Callable[[], None], every: float, patience: float | None = None) -> Iterator[None]:
    """Within the block, do `work` every so many seconds.

    The end of the block waits for work that has begun, with `patience` no longer than so many seconds.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every):
            work()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(patience)
