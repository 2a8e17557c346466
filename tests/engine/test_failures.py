"""What kind of failure an exception is, when failures end a run, and what stays within the trial of a plug-in."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from study.core.errors import Damaged, DiskFull, Refused
from study.core.failures import LONGEST_TRACE, Failure, Streak
from study.engine import cluster, failures, isolation, jobs
from study.engine.failures import Reported, failure_of, killed_for_memory, lost_worker
from study.engine.isolation import MOST_OUTPUT, PlugInExited, isolated
from study.engine.jobs import Job, run_all
from study.engine.microbatches import DoesNotFit
from tests.helpers.processes import forked

BUG = Failure("bug", "x")
FULL = Failure("disk full", "x")


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


# ---- kinds ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DoesNotFit("too large"), "out of memory (device)"),
        (torch.OutOfMemoryError("CUDA"), "out of memory (device)"),
        (MemoryError(), "out of memory (host)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory (host)"),
        (OSError(errno.ENOSPC, "No space"), "disk full"),
        (DiskFull("the disk is full: x needs 5 bytes"), "disk full"),
        (caused(RuntimeError("saving failed"), OSError(errno.EDQUOT, "quota")), "disk full"),
        (Damaged("x is damaged"), "damaged input"),
        (caused(ValueError("it does not load"), Damaged("x is damaged")), "damaged input"),
        (FileNotFoundError("x"), "input or output"),
        (ValueError("of a library"), "bug"),
        (KeyError("a"), "bug"),
        (Refused("choose another"), "refused"),
        (PlugInExited("the plug-in called sys.exit(3)"), "bug"),
        (Reported(FULL), "disk full"),
    ],
)
def test_a_failure_is_called_by_its_cause(error: Exception, kind: str) -> None:
    assert failure_of(error).kind == kind
    assert failure_of(error).smallest == isinstance(error, DoesNotFit)


def test_a_bug_is_told_by_the_last_line_of_its_traceback_and_where_it_was() -> None:
    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        raise KeyError("a\nb")

    try:
        deep(2000 if sys.getrecursionlimit() > 5000 else 500)
    except KeyError as error:
        found = failure_of(error)
    assert found.message.startswith("KeyError: 'a\\nb' (test_failures.py:")
    assert found.trace.rstrip().endswith("KeyError: 'a\\nb'")
    assert len(found.trace) <= LONGEST_TRACE


def test_a_refusal_is_told_as_it_is() -> None:
    assert failure_of(Refused("no question is left: choose another ratio")).message == (
        "no question is left: choose another ratio"
    )


def test_a_failure_travels_between_processes() -> None:
    assert failure_of(pickle.loads(pickle.dumps(Reported(FULL)))) == FULL
    assert Failure(**FULL.plain) == FULL


def test_a_worker_that_the_kernel_ended_for_memory_is_told_from_one_that_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "KERNEL", tmp_path / "vmstat")
    assert killed_for_memory() == 0
    (tmp_path / "vmstat").write_text("pgfault 7\noom_kill 2\n")
    assert killed_for_memory() == 2
    assert lost_worker(2).kind == "worker lost"
    assert lost_worker(1).kind == "out of memory (host)"


# ---- when failures end a run -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ended", "ends"),
    [
        ([BUG] * 2, False),
        ([BUG] * 3, True),
        ([BUG, BUG, None, BUG, BUG], False),
        ([None, BUG, BUG, BUG, None], True),  # what was running beside the last of them changes nothing
        ([FULL], True),
    ],
)
def test_what_fails_every_time_ends_a_run_after_a_few_jobs(ended: list[Failure | None], ends: bool) -> None:
    streak = Streak()
    for failure in ended:
        streak.add(failure)
    assert streak.ends == ends


def test_a_job_s_failure_is_told_and_another_s_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    failure = jobs.run_quietly(lambda: 1 / 0, ())
    assert failure is not None
    assert (failure.kind, failure.message.split(" (")[0]) == ("bug", "ZeroDivisionError: division by zero")
    assert jobs.run_quietly(done.append, ("worked",)) is None
    assert done == ["worked"]


# ---- what plug-ins do besides ----------------------------------------------------------------------------------------
def test_a_plug_in_that_exits_fails_and_the_worker_goes_on() -> None:
    with pytest.raises(PlugInExited, match=r"called sys\.exit\(3\)"), isolated():
        sys.exit(3)


def test_what_a_plug_in_prints_is_capped(capsys: pytest.CaptureFixture[str]) -> None:
    line = "x" * 99 + "\n"
    with isolated():
        for _ in range(3 * MOST_OUTPUT // len(line)):
            sys.stdout.write(line)
        print("and errors", file=sys.stderr)
    print("after it")
    out, err = capsys.readouterr()
    assert out == (line * (1 + MOST_OUTPUT // len(line)))[:MOST_OUTPUT] + "after it\n"
    assert err == "and errors\n"


def _forks(note: Path) -> None:
    """As a worker whose plug-in forks: only the worker itself gets beyond it."""
    with isolated():
        os.fork()
    with note.open("a") as file:
        file.write("beyond\n")
    time.sleep(0.5)  # the other would have written by now


@pytest.mark.slow
def test_a_process_that_a_plug_in_forked_ends_with_it(tmp_path: Path) -> None:
    worker = get_context("spawn").Process(target=_forks, args=(tmp_path / "note",))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert (tmp_path / "note").read_text() == "beyond\n"


@pytest.mark.skipif(not isolation._children.__module__ or sys.platform != "linux", reason="needs /proc")
def test_a_process_that_a_plug_in_left_running_is_ended() -> None:
    with isolated():
        left = subprocess.Popen(["sleep", "600"])
    assert left.wait(timeout=30) == -9


def test_a_worker_in_which_a_plug_in_left_a_thread_does_no_other_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends by itself spoils nothing."""
    exits: list[int] = []
    monkeypatch.setattr(isolation, "_strangers", [])
    monkeypatch.setattr(os, "_exit", exits.append)
    monkeypatch.setattr(isolation, "GRACE", 0.1)
    stop = threading.Event()

    def after(work: Callable[[], object]) -> list[int]:
        with isolated():
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
        isolation.end_if_spoilt()
        return exits

    assert after(lambda: None) == []
    with ThreadPoolExecutor(1) as pool:
        assert after(lambda: pool.submit(abs, 1).result()) == []
    assert after(stop.wait) == [1]
    stop.set()


def _leaves_a_thread(together: Path, number: int) -> None:
    """As a plug-in in a job, of which two are at work at once, so that each is in a process of its own."""
    (together / f"{number}.there").touch()
    while len([*together.glob("*.there")]) < 2:
        time.sleep(0.02)
    isolation.GRACE = 0.1
    with isolated():
        threading.Thread(target=threading.Event().wait, daemon=True).start()


def _stages(together: Path) -> dict[str, Failure]:
    """What failed of two stages of one study; the first leaves threads in both of its workers."""
    with cluster.started("", 2, 1, preloaded="study.stages.worker_template"):
        first = [Job(str(number), _leaves_a_thread, (together, number)) for number in range(2)]
        failed = run_all(first, lambda job, failure: None, at_once=2, gpus=0)
        time.sleep(2)  # as between stages
        second = [Job(f"then {number}", (together / str(number)).touch, ()) for number in range(4)]
        return failed | run_all(second, lambda job, failure: None, at_once=1, gpus=0)


@pytest.mark.slow
def test_workers_in_which_plug_ins_left_threads_fail_no_job_of_the_next_stage(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=forked()) as pool:
        assert pool.submit(_stages, tmp_path).result() == {}
    assert all((tmp_path / str(number)).exists() for number in range(4))
