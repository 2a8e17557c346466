"""Errors that say whose fault it was: a setting's, a stage's, or a damaged file's."""

from __future__ import annotations


class Refused(Exception):
    """The study cannot be run as asked; the message says what to change."""


class Failed(Exception):
    """The study cannot go on; the message says what failed, with the numbers."""


class Damaged(ValueError):
    """A file of the study is not what was written: no result of any trial, but something to be repaired."""
