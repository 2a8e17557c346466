"""What a model folder makes this project run, such as a chat template, is first run in a copy of the process that the
system ends: it may loop for ever, or write without end."""

from __future__ import annotations

import os
import resource
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SECONDS = 3
"""Of computing: templates take milliseconds."""
MEMORY = 2**30
"""Bytes beyond those of the process; templates take kilobytes."""


def ends(work: Callable[[], bool], seconds: int = SECONDS, memory: int = MEMORY) -> bool:
    """Whether `work` returns true, or raises an error of its own, before it has used so much time or memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, none of which the copy needs
        process = os.fork()
    if process:
        _, status = os.waitpid(process, 0)
        return status == 0
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


def _size() -> int:
    """Bytes of memory that this process has reserved; Linux says how many pages."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
