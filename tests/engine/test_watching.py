"""A run whose Ray has died ends at once with what to do, and one that is asked to end does so in time."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from study.core.signals import STOPPED, TERMINATED
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


def test_only_what_stays_away_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []
    monkeypatch.setattr(watching, "end_now", lambda last, status: ends.append(last))
    told = iter(["gone", "", "gone", "", *["gone for good"] * 10**6])
    with ends_with_ray(lambda: next(told), patience=0.02, every=0.001):
        while not ends:
            time.sleep(0.001)
    assert ends[0].startswith("failed: gone for good: run the same command again")


def test_a_control_store_that_listens_is_there() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        gcs = f"127.0.0.1:{listener.getsockname()[1]}"
        assert silent_there(gcs) == ""
    assert silent_there(gcs).startswith(f"the Ray at {gcs} does not answer any more (")
