"""Killed at instants that are drawn, again and again, a study ends in exactly what an undisturbed one ends in."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from study.core import signals
from study.core.files import read_json, write_json
from study.core.layout import StudyFolder
from study.engine import cluster
from study.engine.jobs import Job, run_all
from study.presets import PRESETS
from study.settings import Study
from study.stages import pipeline
from tests.helpers.in_process import without_ray
from tests.helpers.page import dots
from tests.helpers.processes import forked
from tests.helpers.studies import proposals, rows

pytestmark = pytest.mark.slow
ENDS = (
    (signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL), (signal.SIGHUP, 130),
    (signal.SIGUSR1, 130), (signal.SIGINT, 130),
)  # fmt: skip
"""Signals, with the exit status of a study that ends by them."""
WRITES = ".writes"
"""Where a run that has ended says how many writes it did."""
LASTS = 0.3
"""Seconds of a job: its worker is killed before that has passed."""


def study_in(root: Path) -> Study:
    """With a search, further seeds of a winner, and attacks: all that writes results; of what is asked, little."""
    smoke = PRESETS["smoke"][1]
    return dataclasses.replace(
        smoke, study_dir=root, benchmark="synthetic:people=20,celebrities=8,attributes=2,views=1,strangers=8",
        methods=("gradient_ascent",), forget_ratios=(10,), trials=2, reference_seeds=1, confirm_seeds=1,
        metric_check=False,
    )  # fmt: skip


def run(root: Path, number: int, writes: int, delay: float) -> None:
    """Run a study in a process of its own, which is sent a signal a moment after it has begun so many writes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    done, fsync = itertools.count(1), os.fsync

    def counted(fd: Any) -> None:
        fsync(fd)
        if next(done) == writes:
            threading.Timer(delay, os.kill, (os.getpid(), number)).start()

    os.fsync = counted
    with signals.like_ctrl_c():
        try:
            with without_ray(), dots():
                assert pipeline.run(study_in(root)) == 0
                (root / WRITES).write_text(str(next(done) - 1))
            os._exit(0)  # before a signal that comes too late meets no handler
        except KeyboardInterrupt:
            os._exit(signals.exit_status())


def run_until(root: Path, number: int = 0, writes: int = 0, delay: float = 0.0) -> int:
    """The exit status of a study that is sent a signal, or of one that is not if it is after 0 writes."""
    process = forked().Process(target=run, args=(root, number, writes, delay))  # type: ignore[attr-defined]
    process.start()
    process.join()
    status: int = process.exitcode
    return status


def ended(folder: StudyFolder) -> Mapping[Path, int]:
    """When the record of each trial and learned model that has ended was written."""
    return {path: path.stat().st_mtime_ns for path in (*folder.trial_records(), *folder.learned_records())}


def whole(folder: StudyFolder) -> None:
    """Every file under its own name can be read."""
    for path in folder.root.rglob("*"):
        below = path.relative_to(folder.root).parts
        if path.is_relative_to(folder.ray) or any(part.startswith(".") for part in below):
            continue
        if path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".parquet":
            pd.read_parquet(path)


def same(root: Path, undisturbed: Path) -> None:
    """A study has proposed and scored what another has."""
    assert proposals(root) == proposals(undisturbed)
    mine, theirs = rows(root), rows(undisturbed)
    assert mine.keys() == theirs.keys()
    for name, frame in mine.items():
        pd.testing.assert_frame_equal(frame, theirs[name], obj=name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed") / "study"
    assert run_until(root) == 0
    return root


@pytest.mark.parametrize("kills", [6, pytest.param(14, marks=pytest.mark.combinations)])
def test_a_study_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    kills: int, undisturbed: Path, tmp_path: Path
) -> None:
    """Or asked to end, at instants that are drawn, and with what Ray leaves behind damaged each time."""
    folder, draw, before = StudyFolder(tmp_path / "killed"), random.Random(kills), dict[Path, int]()
    most = max(2, int((undisturbed / WRITES).read_text()) // 4)  # a study is killed some times before it ends
    sent = 0
    for turn in range(kills):
        number, status = ENDS[turn % len(ENDS)]
        at = draw.randint(1, most), draw.choice([0.0, 0.3]) * draw.random()
        found = run_until(folder.root, number, *at)
        assert found in (0, status), "it had ended before, or ends as the signal says"
        whole(folder)
        if found == 0:
            same(folder.root, undisturbed)
            folder, before = StudyFolder(tmp_path / f"killed {turn}"), {}
            continue
        sent += 1
        now = ended(folder)
        assert before.items() <= now.items()  # what has ended is neither lost nor done again
        before = dict(now)
        for name in ("tuner.pkl", "experiment_state-0.json") if folder.lock.exists() else ():  # before that is no Ray
            (folder.ray / "search-0").mkdir(parents=True, exist_ok=True)
            (folder.ray / "search-0" / name).write_bytes(b"")
    assert sent > kills // 2, "the study was over before it was sent a signal"
    assert run_until(folder.root) == 0
    assert before.items() <= ended(folder).items()
    assert folder.drafts() == []
    assert not folder.ray.exists()
    same(folder.root, undisturbed)


def job(place: Path, number: int, delay: float | None) -> None:
    """Writes a result in the end; the worker of its first attempt is killed meanwhile, if a delay is given."""
    attempts = place / f"{number}.attempts"
    with attempts.open("a") as file:
        file.write("x")
    killer = threading.Timer(delay or 0, os.kill, (os.getpid(), signal.SIGKILL))
    if delay is not None and len(attempts.read_text()) == 1:
        killer.start()
    time.sleep(LASTS)
    write_json(place / f"{number}.json", number)
    if killer.is_alive():
        killer.join()  # a timer that is late kills after the result was written


def run_jobs(place: Path, delays: Sequence[float | None]) -> dict[str, str]:
    """Run a job for each delay on a Ray of this process; what failed."""
    jobs = [Job(str(number), job, (place, number, delay)) for number, delay in enumerate(delays)]
    with cluster.started("", 2, 1, preloaded="study.stages.worker_template"):
        failed = run_all(jobs, lambda job, failure: None, at_once=2, gpus=0)
    return {name: str(failure) for name, failure in failed.items()}


def test_workers_that_are_killed_at_any_instant_cost_no_job(tmp_path: Path) -> None:
    """In a process of its own, which no other test has connected to a Ray."""
    draw = random.Random(0)
    delays = [draw.uniform(0, LASTS) if number % 6 else None for number in range(24)]
    with ProcessPoolExecutor(1, mp_context=forked()) as pool:
        assert pool.submit(run_jobs, tmp_path, delays).result() == {}
    assert [read_json(tmp_path / f"{number}.json") for number in range(24)] == list(range(24))
    attempts = [len((tmp_path / f"{number}.attempts").read_text()) for number in range(24)]
    assert attempts == [1 if delay is None else 2 for delay in delays]
