"""Which kind of failure an exception is."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

from study.core.errors import Damaged, Refused
from study.core.failures import LONGEST_TRACE, Failure, FailureKind
from study.core.files import is_full

KERNEL = Path("/proc/vmstat")
"""Linux counts here, among others, the processes that it ended because memory had run out."""


class Reported(RuntimeError):
    """A failure in another process that did part of this job."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure

    def __reduce__(self) -> tuple[type[Reported], tuple[Failure]]:
        return type(self), (self.failure,)


def failure_of(error: BaseException) -> Failure:
    """The failure that an exception is, with its traceback."""
    if isinstance(error, Reported):
        return error.failure
    kind = _kind(error)
    message = " ".join(str(error).split()) or type(error).__name__
    if kind == "bug":
        message = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1] + _place(error)
    trace = "".join(traceback.format_exception(error))
    return Failure(kind, message, trace[-LONGEST_TRACE:], kind == "out of memory (device)" and _is_smallest(error))


def lost_worker(killed_before: int, told: str = "the process or its machine ended without a word") -> Failure:
    """The failure of a job whose worker is gone, given how many processes the kernel had ended for memory before."""
    if killed_for_memory() > killed_before:
        return Failure(
            "out of memory (host)",
            "the kernel ended the worker because main memory had run out; use fewer --workers and run the same "
            "command again",
        )
    return Failure("worker lost", f"{told}; run the same command again")


def killed_for_memory() -> int:
    """How many processes of this machine the kernel has ended because memory ran out; 0 where it does not say."""
    try:
        counts = dict(line.split() for line in KERNEL.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return 0
    return int(counts.get("oom_kill", 0))


def _kind(error: BaseException) -> FailureKind:
    import torch  # as `quiet_worker`: only workers need it

    from study.engine.microbatches import DoesNotFit

    chain = list(_chain(error))
    if any(map(is_full, chain)):
        return "disk full"
    if any(isinstance(one, DoesNotFit | torch.OutOfMemoryError) for one in chain):
        return "out of memory (device)"
    if any(isinstance(one, MemoryError) or "DefaultCPUAllocator" in str(one) for one in chain):
        return "out of memory (host)"
    if any(isinstance(one, Damaged) for one in chain):
        return "damaged input"
    if isinstance(error, Refused):
        return "refused"
    return "input or output" if isinstance(error, OSError) else "bug"


def _is_smallest(error: BaseException) -> bool:
    from study.engine.microbatches import DoesNotFit

    return any(isinstance(one, DoesNotFit) for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _place(error: BaseException) -> str:
    """Where an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
