"""A run whose Ray has died ends at once with what to do, and one that is asked to end does so in time."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import pytest

from study.core.signals import INTERRUPTED, STOPPED, TERMINATED, like_ctrl_c
from study.engine import watching
from study.engine.watching import ends_with_ray, silent_there

KILLED = """
import os, signal, sys, time
from study.core.signals import like_ctrl_c
from study.engine import cluster
with like_ctrl_c(), cluster.started("", 1, 1):
    os.kill(cluster._node().all_processes[sys.argv[1]][0].process.pid, signal.SIGKILL)
    time.sleep(600)
"""
ASKED = """
import os, signal, time
from study.core import signals
from study.engine import cluster
signals.GRACE = 3.0
with signals.like_ctrl_c(), cluster.started("", 1, 1):
    for process in ("gcs_server", "raylet"):
        os.kill(cluster._node().all_processes[process][0].process.pid, signal.SIGUSR1)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
    except KeyboardInterrupt:
        time.sleep(600)
"""
"""Everything of a job is signalled, and what runs in it takes its time to end."""
STUCK = """
import ctypes, os, signal
from study.core import signals
signals.GRACE = 0.5
with signals.like_ctrl_c(), signals.hurried():
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.ALL)  # another thread is sent them: this one stays where it is
    os.kill(os.getpid(), signal.SIGTERM)
    ctypes.CDLL(None).sleep(600)
"""
"""The main thread is in a library that does not let Python handle signals."""


def ended(program: str, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, check=False)
    return done.returncode, done.stdout


def test_what_does_not_end_within_the_grace_period_is_ended() -> None:
    status, said = ended(STUCK)
    assert status == TERMINATED
    assert said.splitlines()[-1] == STOPPED


@pytest.mark.slow
@pytest.mark.parametrize("process", ["gcs_server", "raylet"])
def test_a_run_whose_ray_was_killed_says_how_to_go_on(process: str) -> None:
    status, said = ended(KILLED, process)
    assert (status, said.splitlines()[-1]) == (
        1,
        f"failed: Ray's process {process} has ended (status -9), so that no job can go on: run the same command again "
        "to continue where it stopped",
    )


@pytest.mark.slow
def test_a_run_whose_ray_was_signalled_with_it_was_interrupted() -> None:
    """Slurm signals every process of a step."""
    status, said = ended(ASKED)
    assert (status, said.splitlines()[-1]) == (INTERRUPTED, STOPPED)


def test_only_what_stays_away_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []
    monkeypatch.setattr(watching, "end_now", lambda last, *_: ends.append(last))
    monkeypatch.setattr(watching, "asked", lambda: False)
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=partial(next, itertools.count())))
    looks, enough = itertools.chain(["gone", "", "gone", ""], itertools.repeat("gone for good")), threading.Event()
    told = zip(range(50), looks, strict=False)

    def gone() -> str:
        number, what = next(told, (50, ""))
        if number == 49:
            enough.set()
        return what

    with ends_with_ray(gone, patience=10, every=0.001):
        assert enough.wait(60)
    assert ends, "it was away for longer than the patience"
    assert {end.partition(": run")[0] for end in ends} == {"failed: gone for good"}


def test_a_run_that_was_asked_to_end_is_not_ended_for_its_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []
    monkeypatch.setattr(watching, "end_now", lambda last, *_: ends.append(last))
    looked = threading.Event()

    def gone() -> str:
        looked.set()
        return "gone"

    with like_ctrl_c():
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGUSR1)
        with ends_with_ray(gone, patience=0, every=0.001):
            assert not looked.wait(0.1)
    assert ends == []


def test_a_control_store_that_listens_is_there() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        gcs = f"127.0.0.1:{listener.getsockname()[1]}"
        assert silent_there(gcs) == ""
    assert silent_there(gcs).startswith(f"the Ray at {gcs} does not answer any more (")
