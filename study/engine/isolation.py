"""What a method or an attack does besides its work stays within its trial: plug-ins are code of others."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

MOST_OUTPUT = 2**20
"""Characters that a plug-in may print in one trial; what it prints after that is dropped."""
GRACE = 1.0
"""Seconds for threads of a plug-in to end after it: some only have their last lines to go."""

OWN = ("ray.", "tqdm.", "concurrent.futures.")
"""Whose threads are none of a plug-in: those of libraries serve this process, and those of a pool wait for work."""

_strangers: list[threading.Thread] = []
"""Threads that plug-ins left behind in this process."""


class PlugInExited(RuntimeError):
    """A plug-in wanted to end the process that runs it."""


@contextmanager
def isolated() -> Iterator[None]:
    """Run a plug-in in the block: its output is capped, and its exit is an error like any other.

    A process that it forked ends where the block does, and so do those that it left running. Threads cannot be ended:
    `end_if_spoilt` ends this process before its next job.
    """
    process, threads, children = os.getpid(), set(threading.enumerate()), _children()
    out, err = _Capped(sys.stdout), _Capped(sys.stderr)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield
    except SystemExit as left:
        raise PlugInExited(f"the plug-in called sys.exit({left.code!r})") from left
    finally:
        if os.getpid() != process:
            os._exit(0)  # what was forked off: the worker itself goes on where it is
        for child in _children() - children:
            with suppress(OSError):
                os.kill(child, signal.SIGKILL)
        _strangers.extend(_left(threads))


def end_if_spoilt() -> None:
    """End this process if threads of a plug-in are left in it: they might draw random numbers, or write to models."""
    if is_spoilt():
        os._exit(1)


def is_spoilt() -> bool:
    """Whether threads of a plug-in are left in this process."""
    return any(thread.is_alive() for thread in _strangers)


def _left(before: set[threading.Thread]) -> list[threading.Thread]:
    """The threads begun since, but for those of compiled code and of `OWN`."""
    begun = [t for t in set(threading.enumerate()) - before if not isinstance(t, threading._DummyThread)]
    theirs = [thread for thread in begun if not _home(thread).startswith(OWN)]
    for thread in theirs:
        thread.join(GRACE)
    return [thread for thread in theirs if thread.is_alive()]


def _home(thread: threading.Thread) -> str:
    """The module of what a thread runs."""
    return str(getattr(getattr(thread, "_target", None), "__module__", None) or type(thread).__module__)


def _children() -> set[int]:
    """The processes that this one has begun; none where the kernel does not say."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            found |= set(map(int, path.read_text(encoding="utf-8").split()))
    return found


class _Capped(io.TextIOBase):
    """A stream that takes so many characters and drops the rest."""

    def __init__(self, to: TextIO) -> None:
        self._to, self._left = to, MOST_OUTPUT

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        kept, self._left = text[: self._left], self._left - min(len(text), self._left)
        self._to.write(kept)
        return len(text)

    def flush(self) -> None:
        self._to.flush()
