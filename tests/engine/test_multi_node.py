"""Real Ray clusters on this machine: a node or the head is lost in the middle of a search, and nothing with it."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from ray.tune.search import Searcher

from study.core.files import read_json
from study.core.hashing import Json
from study.core.layout import StudyFolder
from study.engine.tune_runner import ProposalSearcher
from study.engine.watching import SILENT, silent_there
from study.experiment.context import StudyContext
from study.presets import PRESETS
from study.settings import Study
from study.stages.learn import _base
from study.stages.preflight import validate_study
from study.stages.search import search_of
from tests import ROOT
from tests.helpers import studies
from tests.helpers.processes import free_ports
from tests.helpers.studies import Whole
from tests.stages import test_kills
from tests.stages.test_pipeline import ASCENT, until_searched

pytestmark = pytest.mark.slow

NODES = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = cluster.add_node(num_cpus=1, resources={"other": 1})
print(cluster.address, flush=True)
for command in sys.stdin:  # "remove": the other node dies, once it is at work
    while cluster.global_state.available_resources_per_node()[other.node_id].get("CPU", 0):
        time.sleep(0.05)
    cluster.remove_node(other, allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""

PRIVATE = """
import ipaddress, json, psutil, time
from study.engine import cluster
with cluster.started("", 1, 1):
    import ray
    agent, until = [], time.monotonic() + 60  # the agent, which tells of metrics, is up last
    while not agent and time.monotonic() < until:
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = [(p, c.laddr) for p in processes for c in p.net_connections("inet") if c.status == "LISTEN"]
        agent = [at.port for p, at in listening if "DashboardAgent" in " ".join(p.cmdline())]
    gcs = ray.get_runtime_context().gcs_address
    hosts = {at.ip.removeprefix("::ffff:") for _, at in listening}
    session = cluster._node().get_session_dir_path()
    found = {
        "ports": [at.port for _, at in listening],
        "gcs": int(gcs.rpartition(":")[2]),
        "asks": cluster.asks_for_token(gcs),
        "agent": len(agent),
        "reached": [host for host in hosts if not ipaddress.ip_address(host).is_loopback],
        "session": session,
    }
print(json.dumps(found))
"""

ATTACH = """
import sys
from study.engine.cluster import started
with started(sys.argv[1], 1, 1):
    pass
"""


LATE = 30.0
"""Seconds within which a run ends that has waited for its Ray for long enough, and all of its head with it."""


@dataclass
class Nodes:
    """Two nodes of one CPU each."""

    process: subprocess.Popen[str]
    address: str
    environment: dict[str, str]

    def remove(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        print("remove", file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "removed\n"


def environment(**settings: str) -> dict[str, str]:
    """This process's, without what would lead a Ray elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **settings}


@contextmanager
def nodes(folder: Path, **settings: str) -> Iterator[Nodes]:
    """A cluster whose processes run in `folder`, gone afterwards."""
    own = environment(**settings)
    process = subprocess.Popen(
        [sys.executable, "-c", NODES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env=own,
    )
    assert process.stdout
    try:
        yield Nodes(process, process.stdout.readline().strip(), own)
    finally:
        process.communicate(timeout=60)


@dataclass
class Head:
    """The head of a cluster that was started by hand."""

    process: subprocess.Popen[bytes]
    address: str
    environment: dict[str, str]

    def kill(self) -> None:
        """SIGKILL to its control store and its raylet; whatever else runs there is left to notice."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        found = {one.name(): one for one in below if one.name() in ("gcs_server", "raylet")}
        assert len(found) == 2
        for one in found.values():
            one.kill()


@contextmanager
def head(ports: Sequence[int], token: str) -> Iterator[Head]:
    """`ray start --head` as docs/cluster.md has it, but for its two ports; all of it is gone afterwards."""
    own = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token, RAY_memory_monitor_refresh_ms="0")
    below: list[psutil.Process] = []
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as place:  # as sockets want
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2"),
            *("--node-ip-address=127.0.0.1", f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}"),
            *("--include-dashboard=false", f"--temp-dir={place}"),
        ]
        process = subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        there = Head(process, f"127.0.0.1:{ports[0]}", own)
        try:
            until = time.monotonic() + 60
            while "raylet" not in {one.name() for one in below} or silent_there(there.address):
                assert time.monotonic() < until
                assert process.poll() is None
                time.sleep(0.1)
                below = psutil.Process(process.pid).children(recursive=True)
            yield there
        finally:
            process.terminate()
            process.wait(60)
            for one in psutil.wait_procs(below, timeout=10)[1]:
                one.kill()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes that ask for a token."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with nodes(tmp_path_factory.mktemp("nodes"), **token) as there:
        yield there


def command(there: Nodes | Head, folder: Path, *settings: str) -> list[str]:
    return studies.command(folder, "--address", there.address, *settings)


def search_rows(folder: StudyFolder, keys: set[str]) -> dict[str, pd.DataFrame]:
    return {key: pd.read_parquet(folder.rows(key, "select")) for key in sorted(keys)}


def proposals(folder: Path) -> dict[str, Json]:
    return {path.name: read_json(path) for path in sorted(folder.glob("search/*/*.json"))}


def undisturbed(study: Study, folder: Path) -> None:
    """The same search on the same learned models, in this process and without Ray: one trial after the other."""
    for proposal in proposals(folder).values():
        shutil.rmtree(StudyFolder(folder).trial(proposal["trial"]), ignore_errors=True)
    shutil.rmtree(folder / "search")
    plan = validate_study(replace(study, study_dir=folder), folder / "data")
    context = StudyContext(plan.root, plan.source, _base(plan))
    asked: Any = None
    searcher = ProposalSearcher(search_of(plan, context))
    while asked != Searcher.FINISHED:
        asked = searcher.suggest("tune")
        if isinstance(asked, dict):
            label, number = asked["place"]
            searcher.search.execute(asked["job"], label, number, 0.0)
            searcher.on_trial_complete("tune", {})


def test_a_folder_that_another_node_does_not_see_is_refused(two: Nodes, tmp_path: Path) -> None:
    """/proc/self/cwd is each process's own working folder."""
    if not Path("/proc/self/cwd").exists():
        pytest.skip("needs Linux")
    done = subprocess.run(
        command(two, Path("/proc/self/cwd/study")), capture_output=True, text=True, cwd=tmp_path, env=two.environment
    )
    assert done.returncode == 2, done.stdout + done.stderr
    host = two.address.rpartition(":")[0]
    assert (
        f"study_dir=/proc/self/cwd/study is not visible on {host}: every node must mount the same folder" in done.stdout
    )
    assert not [path for path in (tmp_path / "study").iterdir() if "probe" in path.name]
    assert "learn:" not in done.stdout


def test_a_node_that_dies_in_the_middle_of_a_search_costs_no_trial(two: Nodes, whole: Whole, tmp_path: Path) -> None:
    folder, copy = whole.scored(tmp_path / "study").root, tmp_path / "copy"
    asked: dict[str, Any] = {"methods": ("gradient_ascent",), "trials": 6, "forget_ratios": (10,), "confirm_seeds": 0}
    settings = ["--methods", "gradient_ascent", "--trials", "6", "--forget-ratios", "10", "--confirm-seeds", "0"]
    running = subprocess.Popen(
        command(two, folder, *settings, "--no-metric-check", "--storage", copy.as_uri()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=two.environment,
    )
    until = time.monotonic() + 300
    while not any(StudyFolder(folder).record(p["trial"]).exists() for p in proposals(folder).values()):
        assert time.monotonic() < until
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.05)
    two.remove()
    done = {p["trial"] for p in proposals(folder).values() if StudyFolder(folder).record(p["trial"]).exists()}
    printed, _ = running.communicate(timeout=300)
    assert running.returncode == 0, printed
    assert "requires no token" not in printed
    found = proposals(folder)
    keys = {proposal["trial"] for proposal in found.values()}
    assert done < keys  # it was the middle
    assert {read_json(StudyFolder(folder).record(key))["state"] for key in keys} == {"complete"}
    mine = search_rows(StudyFolder(folder), keys)

    assert {path.relative_to(copy) for path in copy.glob("trials/*/trial.json")} == {
        path.relative_to(folder) for path in folder.glob("trials/*/trial.json")
    }
    study = replace(PRESETS["smoke"][1], **asked, metric_check=False).resolved()
    undisturbed(study, copy)  # what was mirrored is a study like any other
    assert proposals(copy) == found
    for key, rows in search_rows(StudyFolder(copy), keys).items():
        pd.testing.assert_frame_equal(rows, mine[key])


def begin(there: Head, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(there, folder, *ASCENT),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder.parent,
        env=there.environment,
    )


def test_a_study_whose_head_is_killed_in_the_middle_of_a_search_continues_on_another(
    whole: Whole, tmp_path: Path
) -> None:
    """It ends by itself, once the head has been away for longer than a network may be, and says how to go on."""
    place, ports, token = whole.scored(tmp_path / "study"), free_ports(2), secrets.token_hex(32)
    with head(ports, token) as there, begin(there, place.root) as running:
        try:
            until_searched(place.root, running)
            there.kill()
            killed = time.monotonic()
            said, _ = running.communicate(timeout=120)
        finally:
            running.kill()
    assert running.returncode == 1, said
    assert re.fullmatch(  # under whichever of its addresses the head has told
        rf"failed: the Ray at \S+:{ports[0]} does not answer any more \(.*\): run the same command again to continue "
        "where it stopped",
        said.splitlines()[-1],
    )
    assert time.monotonic() - killed < SILENT + LATE
    test_kills.whole(place)
    before = test_kills.ended(place)

    with head(ports, token) as there, begin(there, place.root) as running:
        try:
            said, _ = running.communicate(timeout=300)
        finally:
            running.kill()
    assert running.returncode == 0, said
    now = test_kills.ended(place)
    assert before.items() < now.items()  # it was the middle, and what had ended is not done again
    assert place.drafts() == []
    whole.of("gradient_ascent").is_all_of(place.root)


def test_a_private_ray_asks_for_a_token_has_no_dashboard_and_is_not_reached_from_elsewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRIVATE], capture_output=True, text=True, cwd=tmp_path, env=environment()
    )
    found = json.loads(done.stdout)
    assert found["asks"] is True
    assert found["gcs"] in found["ports"]  # the ports that were looked at are Ray's
    assert 8265 not in found["ports"]
    assert found["agent"] > 0
    assert found["reached"] == []
    assert not Path(found["session"]).exists()


def test_a_cluster_that_lets_everybody_in_is_warned_of(tmp_path: Path) -> None:
    with nodes(tmp_path, RAY_AUTH_MODE="disabled") as there:
        done = subprocess.run(
            [sys.executable, "-c", ATTACH, there.address],
            capture_output=True,
            text=True,
            env=environment(RAY_AUTH_TOKEN=secrets.token_hex(32)),
        )
    assert done.returncode == 0, done.stderr
    assert f"warning: the Ray at {there.address} requires no token" in done.stdout
    assert "RAY_AUTH_MODE=token" in done.stdout


def test_a_cluster_whose_token_is_another_is_an_error_that_says_so(two: Nodes, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ATTACH, two.address],
        capture_output=True,
        text=True,
        env=environment(HOME=str(tmp_path)),
    )
    assert f"ConnectionError: no Ray answers at {two.address}" in done.stderr
    assert "~/.ray/auth_token from its head node" in done.stderr
