"""The lock of a study's folder: one process at a time runs a study or removes files of it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from study.core.errors import Refused
from study.core.layout import StudyFolder


@contextmanager
def locked(folder: StudyFolder) -> Iterator[None]:
    """Lock the study's folder; the lock of a dead process is free. Raises `Refused` naming the owner if in use."""
    with folder.lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise Refused(
                f"{folder.root} is in use by {lock.read().strip() or 'another process'}; wait for it to end"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
