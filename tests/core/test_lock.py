"""Who holds the lock of a study, and who waits for it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from study.core import lock
from study.core.errors import Refused
from study.core.layout import StudyFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    monkeypatch.setattr(lock, "PAUSE", 0.0)
    return StudyFolder(tmp_path)


def test_one_process_at_a_time_holds_the_lock(folder: StudyFolder) -> None:
    assert lock.owner(folder) == ""
    with lock.locked(folder):
        assert lock.owner(folder).startswith(f"process {os.getpid()} on ")
        said = rf"is in use by process {os.getpid()} on .*; wait for it to end"
        with pytest.raises(Refused, match=said), lock.locked(folder):
            pass
    assert lock.owner(folder) == ""
    with lock.locked(folder):
        pass


def test_whoever_only_asks_for_the_owner_is_waited_for(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The question takes the lock for an instant."""
    folder.lock.touch()
    asks = folder.lock.open()
    fcntl.flock(asks, fcntl.LOCK_SH)
    monkeypatch.setattr("study.core.lock.time.sleep", lambda seconds: asks.close())
    with lock.locked(folder):
        assert lock.owner(folder)


def test_a_file_system_without_locks_is_no_owner(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    folder.lock.touch()
    monkeypatch.setattr("study.core.lock.fcntl.flock", refuse)
    with pytest.raises(OSError, match="No locks available"):
        lock.owner(folder)
    with pytest.raises(OSError, match="No locks available"), lock.locked(folder):
        pass
