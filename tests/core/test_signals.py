"""Signals that ask a run to end do what Ctrl-C does, and the exit status says which it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from queue import Queue
from typing import NoReturn

import pytest

from study import run
from study.core.console import console
from study.core.signals import ALL, INTERRUPTED, TERMINATED, exit_status, kept, like_ctrl_c
from study.settings import Study
from study.stages import pipeline


def sending(number: signal.Signals) -> Callable[[Study], NoReturn]:
    """A study that is sent a signal while it runs."""

    def go(study: Study) -> NoReturn:
        os.kill(os.getpid(), number)
        raise AssertionError("it went on")

    return go


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, INTERRUPTED),
        (signal.SIGTERM, TERMINATED),
        (signal.SIGHUP, INTERRUPTED),
        (signal.SIGUSR1, INTERRUPTED),
    ],
)
def test_a_study_that_is_asked_to_end_says_how_to_go_on(
    number: signal.Signals, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(console, "print", said.append)
    monkeypatch.setattr(pipeline, "run", sending(number))
    monkeypatch.setattr(sys, "argv", ["run.py", "smoke"])
    inherited = signal.signal(number, signal.default_int_handler)  # under nohup SIGHUP is ignored, and stays so
    try:
        assert run.main() == status
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, inherited)
    assert set(said) == {
        "finishing: jobs that run are ended, and what has ended is kept",
        "interrupted: run the same command again to continue where it stopped",
    }


def test_whoever_has_taken_ctrl_c_over_is_asked() -> None:
    """Tune and Ray Train end their runs in order when they are interrupted."""
    asked: list[int] = []
    with like_ctrl_c():
        before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
        os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGINT, before)
    assert asked == [signal.SIGINT]
    assert exit_status() == TERMINATED


@pytest.mark.parametrize("number", ALL)
def test_a_signal_is_answered_before_its_handler_has_ended(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    said, heard = Queue[str](), list[str]()
    monkeypatch.setattr(console, "print", said.put)
    with like_ctrl_c():
        before = signal.signal(number, lambda number, frame: heard.append(said.get(timeout=60)))
        os.kill(os.getpid(), number)
        signal.signal(number, before)
    assert heard == ["finishing: jobs that run are ended, and what has ended is kept"]


def test_a_library_keeps_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    with like_ctrl_c():
        before = [signal.getsignal(number) for number in ALL]
        with kept():
            for number in ALL:
                signal.signal(number, signal.SIG_DFL)
        assert [signal.getsignal(number) for number in ALL] == before
        with suppress(ConnectionError), kept():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            raise ConnectionError
        assert [signal.getsignal(number) for number in ALL] == before
        assert exit_status() == INTERRUPTED  # none was received


def test_what_nohup_ignores_stays_ignored_and_ctrl_c_in_the_background_does_not() -> None:
    script = (
        "import os, signal\n"
        "from study.core.signals import like_ctrl_c\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with like_ctrl_c():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('went on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "went on\nfinishing: jobs that run are ended, and what has ended is kept\n"
    assert "KeyboardInterrupt" in done.stderr
