"""Failures: why a job did not end. None is a result of the job: it stays open, and the same command tries it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Refusal = Literal["", "refused", "out of memory (device)"]
"""What a trial or an attack may fail by as its result: the method or the attack says that it cannot be done, or its
device is too small. Empty where it did not fail, or in records from before this was told apart."""
FailureKind = Literal[
    "out of memory (device)", "out of memory (host)", "worker lost", "disk full", "damaged input", "input or output",
    "refused", "bug",
]  # fmt: skip
LONGEST_TRACE = 2**16
"""Characters of a traceback that are kept, the last ones: one of endless recursion has millions."""


@dataclass(frozen=True)
class Failure:
    """Why a job did not end."""

    kind: FailureKind
    message: str
    """The error, which names the file and the remedy where it knows them; of a bug the last line of its traceback."""
    trace: str = ""
    """The whole traceback; empty where a process ended without one."""
    smallest: bool = False
    """Whether a device ran out of memory although the work was split as finely as it can be."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    @property
    def plain(self) -> dict[str, Any]:
        """As it is sent from process to process."""
        return asdict(self)


class Streak:
    """Counts failures without a success in between: what fails every time ends a run after a few jobs, not after all.

    So does a full disk at once.
    """

    MOST = 3
    """Enough not to mistake for a rule what struck one job, and few enough to waste little."""

    def __init__(self) -> None:
        self._length = 0
        self.ends = False
        """Whether no further job should begin."""

    def add(self, failure: Failure | None) -> None:
        """Count a job that has ended, with its failure if it failed."""
        self._length = self._length + 1 if failure else 0
        self.ends = self.ends or self._length >= self.MOST or (failure is not None and failure.kind == "disk full")
