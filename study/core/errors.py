"""Errors by their cause: a setting, a stage, or a damaged file."""

from __future__ import annotations


class Refused(Exception):
    """The study cannot be run as asked; the message says what to change."""


class Failed(Exception):
    """The study cannot go on; the message says what failed, with the numbers."""


class Damaged(ValueError):
    """A file of the study is not what was written. That is no result of a trial, but something to repair."""
