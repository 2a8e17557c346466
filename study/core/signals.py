"""Signals that ask a run to end do so in order, as Ctrl-C does: docker, slurm, systemd and spot markets send them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
INTERRUPTED, TERMINATED = 130, 143
"""Exit statuses, as shells give them: 128 and the number of SIGINT, or of SIGTERM."""

_received: list[int] = []


@contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Within the block these signals do what Ctrl-C does there, whatever library has taken that over.

    A signal that is ignored stays so: `nohup` has asked for that. Ctrl-C that is ignored is not what is meant: shells
    do that to every process in the background.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ASKING)}
    if before[signal.SIGINT] == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ASKING:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    _received.clear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_status() -> int:
    """The exit status of a run that was interrupted."""
    return TERMINATED if signal.SIGTERM in _received else INTERRUPTED


@contextmanager
def kept() -> Iterator[None]:
    """Within the block a library may set handlers of its own; afterwards those from before are in place again."""
    if threading.current_thread() is not threading.main_thread():  # nobody can set any there
        yield
        return
    before = {number: signal.getsignal(number) for number in ASKING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    signal.raise_signal(signal.SIGINT)
