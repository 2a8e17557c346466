"""The temporary folders of private Rays: for their user alone, and gone when their study has ended, however it did."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from study.engine.fork_server import OWNED

NEW = 60.0
"""Seconds for which a folder may be one whose lock is about to be taken."""


@contextmanager
def owned(session: Path) -> Iterator[None]:
    """Within the block the folder of a Ray is this process's; afterwards it is removed.

    Ray lets every user of the machine read and write there.
    """
    session.chmod(0o700)
    with (session / OWNED).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            shutil.rmtree(session, ignore_errors=True)  # a process of Ray may still write there as it ends


def sweep(place: Path, pattern: str) -> None:
    """Remove the folders of studies that were killed: nobody holds their locks."""
    for path in place.glob(f"{pattern}/{OWNED}"):
        with suppress(OSError), path.open("r+") as lock:  # another user's, of a study that goes on, or gone meanwhile
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - path.stat().st_mtime > NEW:
                shutil.rmtree(path.parent)
