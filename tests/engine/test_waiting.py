"""What a study waits for is told: what is wanted, what is there and what is coming."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from study.engine import waiting
from study.engine.waiting import told_while_waiting, waiting_for


def status(wanted: list[tuple[int, dict[str, float]]], there: dict[str, tuple[float, float]], coming: int = 0) -> Any:
    """As Ray's: counts of bundles that are wanted, used and total amounts, machines on their way."""
    requests = [SimpleNamespace(bundle=bundle, count=count) for count, bundle in wanted]
    usage = [SimpleNamespace(resource_name=name, used=used, total=total) for name, (used, total) in there.items()]
    return SimpleNamespace(
        resource_demands=SimpleNamespace(
            ray_task_actor_demand=[SimpleNamespace(bundles_by_count=requests)], placement_group_demand=[]
        ),
        cluster_resource_usage=usage,
        pending_launches=[],
        pending_nodes=[None] * coming,
    )


def test_it_says_what_is_wanted_there_and_coming() -> None:
    found = status([(3, {"CPU": 1.0, "GPU": 1.0}), (1, {"GPU": 4.0})], {"CPU": (2.0, 8.0)}, coming=2)
    assert waiting_for(found) == (
        "waiting for processes: 3 with 1 CPU + 1 GPU and 1 with 4 GPUs; on the cluster 6 of 8 CPUs are free, "
        "there is no GPU, and 2 machines are being started"
    )
    assert waiting_for(status([], {"CPU": (8.0, 8.0)})) == ""


@pytest.mark.parametrize(("used", "again"), [(0.0, True), (1.0, False)])
def test_it_is_told_again_only_while_nothing_runs(used: float, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, enough, before = [0], threading.Event(), threading.enumerate()
    told: list[str] = []

    def look(_: str) -> Any:
        asked[0] += 1
        if asked[0] == 4:
            enough.set()
        return status([(1, {"GPU": 1.0})], {"CPU": (used, 2.0)})

    monkeypatch.setattr(waiting, "_status", look)
    with told_while_waiting("x", told.append, every=0.001):
        assert enough.wait(60)
    assert len(told) >= 3 if again else len(told) == 1
    assert threading.enumerate() == before


@pytest.mark.slow
def test_a_ray_that_does_not_answer_ends_nothing() -> None:
    """Ray, which reads once in a process for how long it is to try, would try for half a minute."""
    program = "from study.engine import waiting; print(waiting._status('127.0.0.1:1'))"
    hasty = {"RAY_gcs_rpc_server_connect_timeout_s": "1", "RAY_py_gcs_connect_timeout_s": "1"}
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | hasty)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout == "None\n"
    assert "Timed out while waiting for GCS" in asked.stderr
