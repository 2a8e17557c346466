"""A run whose Ray has died ends with a word: Ray itself waits for what is gone, or ends the process without one."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from study.core.repeating import repeated
from study.core.signals import asked, end_now

EVERY = 1.0
"""Seconds between two looks."""
SILENT = 30.0
"""Seconds for which the control store of a cluster may not be reached: a network may be away, and Ray waits for 60."""
COPIES = 60.0
"""Seconds for a last copy of the study, if it has one elsewhere: nobody hurries this end."""


@contextmanager
def ends_with_ray(gone: Callable[[], str], patience: float, every: float = EVERY) -> Iterator[None]:
    """Within the block, end this process once `gone` has told for `patience` seconds that something has gone, and what.

    No result is lost: each is whole on disk before it counts. A run that was asked to end is left to do so: the signal
    may have reached Ray's processes as well.
    """
    there = time.monotonic()

    def look() -> None:
        nonlocal there
        if asked():
            return
        what = gone()
        there = there if what else time.monotonic()
        if what and time.monotonic() - there >= patience:
            end_now(f"failed: {what}: run the same command again to continue where it stopped", 1, COPIES)

    with repeated(look, every):
        yield


def ended_here(node: Any) -> str:
    """Which process of a Ray that was started here has ended, if one has without which it can do nothing."""
    for name in ("gcs_server", "raylet"):
        for started in node.all_processes.get(name, ()):
            if (status := started.process.poll()) is not None:
                return f"Ray's process {name} has ended (status {status}), so that no job can go on"
    return ""


def silent_there(gcs: str) -> str:
    """Whether the control store of a cluster, at host:port, cannot be reached."""
    host, _, port = gcs.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=EVERY).close()
    except OSError as error:
        return f"the Ray at {gcs} does not answer any more ({error})"
    return ""
