"""The lock of a study's folder: one process at a time runs a study or removes files of it."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from study.core.errors import Refused
from study.core.layout import StudyFolder

TRIES = 20
PAUSE = 0.05
"""Seconds between two tries, a second in all: whoever asks who runs a study holds its lock for an instant."""


@contextmanager
def locked(folder: StudyFolder) -> Iterator[None]:
    """Lock the study's folder; the lock of a dead process is free. Raises `Refused` naming the owner if in use."""
    with folder.lock.open("a+") as lock:
        if not _taken(lock):
            lock.seek(0)
            raise Refused(f"{folder.root} is in use by {_owner(lock)}; wait for it to end")
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


def owner(folder: StudyFolder) -> str:
    """Which process holds the lock, on which machine; empty if none does."""
    if not folder.lock.exists():
        return ""
    with folder.lock.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # only tried: closing the file lets it go
        except BlockingIOError:
            return _owner(lock)
    return ""


def _taken(lock: IO[str]) -> bool:
    """Whether the lock could be taken, at one of some tries."""
    for _ in range(TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PAUSE)
        else:
            return True
    return False


def _owner(lock: IO[str]) -> str:
    return lock.read().strip() or "another process"
