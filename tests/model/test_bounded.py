"""What is tried in a copy of the process has an end, and a process that cannot be copied goes on."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from study.model import loading
from study.model.bounded import ends
from study.model.memory_estimate import describe


def endless() -> bool:
    while True:
        pass


def test_a_copy_that_waits_for_ever_is_killed_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    kill = os.kill

    def noted(process: int, number: int) -> None:
        killed.append(process)
        kill(process, number)

    monkeypatch.setattr(os, "kill", noted)
    assert ends(threading.Event().wait, patience=0.1)
    (process,) = killed
    with pytest.raises(ChildProcessError):  # nothing is left of it
        os.waitpid(process, os.WNOHANG)


@pytest.mark.slow
def test_a_copy_that_computes_for_ever_does_not_end_well() -> None:
    assert not ends(endless, seconds=1)


def test_without_memory_for_a_copy_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "fork", full)
    assert ends(endless)


def test_a_worker_that_says_what_its_model_takes_makes_no_copy(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading._without_weights.cache_clear()  # of what other tests have asked for
    tried: list[object] = []
    monkeypatch.setattr(loading, "ends", tried.append)
    assert "GiB" in describe(tiny_folder, loading.Loading())
    assert tried == []
