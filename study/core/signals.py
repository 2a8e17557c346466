"""Signals that ask a run to end do so in order, as Ctrl-C does: docker, slurm, systemd and spot markets send them."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from study.core.console import console

ASKING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
ALL = (signal.SIGINT, *ASKING)
INTERRUPTED, TERMINATED = 130, 143
"""Exit statuses, as shells give them: 128 and the number of SIGINT, or of SIGTERM."""

GRACE = 8.0
"""Seconds in which what `hurried` must end after a signal: docker, the least patient, kills after ten."""
LAST = 1.5
"""Seconds after that for what is done before the end."""
STOPPED = "interrupted: run the same command again to continue where it stopped"

_received: list[int] = []
_before: list[tuple[Callable[[], None], str]] = []
"""What `end_now` does first, with what it says where the time is too short."""
_free_to_end = threading.Event()
"""Whether nothing is `hurried` now."""
_free_to_end.set()


@contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Within the block these signals do what Ctrl-C does there, whatever library has taken that over.

    A signal that is ignored stays so: `nohup` has asked for that. Ctrl-C that is ignored is not what is meant: shells
    do that to every process in the background.
    """
    before = {number: signal.getsignal(number) for number in ALL}
    if before[signal.SIGINT] == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ASKING:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    _received.clear()
    try:
        with _answered():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _answered() -> Iterator[None]:
    """Within the block the first of these signals is answered at once, whoever handles it and however long that takes.

    Python tells this socket of a signal as soon as it arrives, before any handler runs.
    """
    ours, theirs = socket.socketpair()

    def answer() -> None:
        while heard := ours.recv(1):
            if heard[0] in ALL:
                _received.append(heard[0])  # its handler may never run, where the main thread waits in a library
                console.print("finishing: jobs that run are ended, and what has ended is kept")
                if not _free_to_end.wait(GRACE):
                    end_now(STOPPED, exit_status())
                return

    theirs.setblocking(False)  # as `set_wakeup_fd` wants it
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=answer, daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()
        listener.join()
        ours.close()


@contextmanager
def hurried() -> Iterator[None]:
    """After a signal this process ends within `GRACE`, even if the block does not: what is on disk is whole anyway.

    For what needs other processes to end in order: whoever sends a signal to all of a job ends these at the same time.
    """
    _free_to_end.clear()
    try:
        yield
    finally:
        _free_to_end.set()


@contextmanager
def before_the_end(work: Callable[[], None], unfinished: str) -> Iterator[None]:
    """Within the block `end_now` first does `work`, and says `unfinished` if the time is too short for it."""
    _before.append((work, unfinished))
    try:
        yield
    finally:
        _before.remove((work, unfinished))


def end_now(last: str, status: int, seconds: float = LAST) -> None:
    """End this process from any of its threads, with a last line on the screen.

    What is to be done `before_the_end` has so many seconds.
    """
    console.show_cursor()
    for work, unfinished in list(_before):
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join(seconds)
        if worker.is_alive():
            console.print(unfinished, markup=False)
    console.print(last, markup=False)
    os._exit(status)


def asked() -> bool:
    """Whether this run was asked to end."""
    return bool(_received)


def exit_status() -> int:
    """The exit status of a run that was interrupted."""
    return TERMINATED if signal.SIGTERM in _received else INTERRUPTED


@contextmanager
def kept() -> Iterator[None]:
    """Within the block a library may set handlers of its own; afterwards those from before are in place again."""
    if threading.current_thread() is not threading.main_thread():  # nobody can set any there
        yield
        return
    before = {number: signal.getsignal(number) for number in ALL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    signal.raise_signal(signal.SIGINT)
