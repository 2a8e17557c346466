"""Errors by their cause: a request, a stage, a damaged file, a full disk."""

from __future__ import annotations


class Refused(Exception):
    """What was asked for cannot be done; the message says what to change.

    Raised by a method or an attack it is the result of the trial or of the attack: it is recorded, and not tried again.
    """


class Failed(Exception):
    """The study cannot go on; the message says what failed, with the numbers."""


REBUILT = "remove it and run the study again to rebuild it"
"""The remedy for a file that was made by itself."""


class Damaged(ValueError):
    """A file is not what was written. That is no result of a trial, but something to repair, if there is a remedy."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.what = what


class DiskFull(OSError):
    """There is no room for a file; `study.core.files.room_for` names it and the bytes that it needs."""


class Purged(ValueError):
    """A study was purged: its evidence is all that can still be read."""
