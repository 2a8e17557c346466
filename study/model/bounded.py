"""What a model folder makes this project run, such as a chat template, is first run in a copy of the process that the
system ends: it may loop for ever, or write without end."""

from __future__ import annotations

import os
import resource
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SECONDS = 3
"""Of computing: templates take milliseconds."""
PATIENCE = 60.0
"""Seconds by the clock: a copy that has not computed for `SECONDS` by then waits for what it will never get, such as a
lock of a thread that was not copied."""
LOOKS = 0.01
"""Seconds between two looks whether the copy has ended."""
MEMORY = 2**30
"""Bytes beyond those of the process; templates take kilobytes."""


def ends(work: Callable[[], bool], seconds: int = SECONDS, memory: int = MEMORY, *, patience: float = PATIENCE) -> bool:
    """Whether `work` returns true, or raises an error of its own, before it has used so much time or memory.

    True as well where it could not be tried: the process cannot be copied, or its copy does nothing for so long.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, none of which the copy needs
            process = os.fork()
    except OSError:  # no memory, or no further process
        return True
    if process:
        return _ended_well(process, time.monotonic() + patience)
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        with suppress(OSError, ValueError):  # not every system limits memory
            resource.setrlimit(resource.RLIMIT_AS, (_size() + memory,) * 2)
        sound = work()
    except MemoryError:
        os._exit(1)
    except BaseException:  # whoever does the work again meets the same error
        os._exit(0)
    os._exit(0 if sound else 1)


def _ended_well(process: int, deadline: float) -> bool:
    """Whether the copy ends with status 0; true of one that has to be killed at the deadline."""
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(LOOKS)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def _size() -> int:
    """Bytes of memory that this process has reserved; Linux says how many pages."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
