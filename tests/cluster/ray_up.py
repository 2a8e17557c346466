"""A study on three hosts, as a user starts it from a laptop with cluster.local.yaml: up, a host is lost, down.

To be run with `hosts.ALONE` and an empty folder; prints what the user types and what matters of the answers.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from study.core.files import read_json
from study.core.layout import StudyFolder
from tests import ROOT
from tests.cluster.hosts import Host, network

CONFIG = "cluster.local.yaml"
TRIALS = 12
STUDY = (
    "cd ~/app && .venv/bin/python study/run.py smoke --address auto --workers 4 --methods gradient_ascent"
    f" --trials {TRIALS} --forget-ratios 10 --confirm-seeds 0 --no-metric-check --study-dir /shared/runs/mine"
)
LEFT = (".venv", "runs", ".git", ".*_cache", ".hypothesis", "__pycache__")
COPY = f"rsync -a {' '.join(f'--exclude {name!r}' for name in LEFT)} {ROOT}/ app/"
PATIENCE = 1200.0
"""Seconds within which a step ends on a machine that has other things to do; undisturbed it is minutes."""
Found = TypeVar("Found")
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def main(folder: Path) -> None:
    """The whole run; raises `AssertionError` at the first step that does not end as it should."""
    provider = yaml.safe_load((ROOT / CONFIG).read_text(encoding="utf-8"))["provider"]
    network(folder)
    laptop = Host("laptop", "10.0.0.250", folder)
    head = Host("head", provider["head_ip"], folder)
    workers = [Host(f"worker-{n}", address, folder) for n, address in enumerate(provider["worker_ips"])]
    study = StudyFolder(folder / "shared" / "runs" / "mine")

    typed(laptop, COPY)
    typed(laptop, "cd app && .venv/bin/ray get-auth-token --generate > /dev/null")
    typed(laptop, f"cd app && .venv/bin/ray up --yes {CONFIG}")
    joined(head, len(workers) + 1)
    with begun(laptop, f"cd app && .venv/bin/ray exec {CONFIG} '{STUDY}'", folder / "study.txt") as running:
        lost = until(lambda: at_work(study, workers, running), "a worker is in the middle of the search")
        lost.off()
        print(f"# {lost.name} is lost after {finished(study)} of {TRIALS} trials")
        assert running.wait(PATIENCE) == 0, shown(folder / "study.txt")
    print(*re.findall("^Report: .*", shown(folder / "study.txt"), re.MULTILINE))
    lost.on()
    print(f"# {lost.name} is back")
    joined(head, len(workers) + 1)
    typed(laptop, f"cd app && .venv/bin/ray down --yes {CONFIG}")
    for host in (head, *workers):
        until(partial(idle, host), f"Ray ends on {host.name}")
    print("# no Ray is left")


def typed(host: Host, line: str) -> None:
    """What the user types, with its answer if it is an error."""
    print(f"{host.name}$ {line}", flush=True)
    done = subprocess.run(host.command(line), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert "command not found" not in done.stdout, done.stdout  # `ray down` ignores what failed on the head


def idle(host: Host) -> bool:
    """Whether no Ray runs on a host."""
    return "raylet" not in host.says("ps -eo args")


def begun(host: Host, line: str, output: Path) -> subprocess.Popen[bytes]:
    """What the user types and does not wait for."""
    print(f"{host.name}$ {line}", flush=True)
    with output.open("wb") as stream:
        return subprocess.Popen(host.command(line), stdout=stream, stderr=subprocess.STDOUT)


def shown(output: Path) -> str:
    """The lines of a terminal, without colours and progress."""
    lines = COLOURS.sub("", output.read_text(encoding="utf-8")).replace("\r", "\n").splitlines()
    return "\n".join(line for line in lines if "━" not in line and "… " not in line)


def until(found: Callable[[], Found | None], what: str) -> Found:
    """Wait for something; what it is, if it is anything."""
    end = time.monotonic() + PATIENCE
    while not (it := found()):
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.5)
    return it


def joined(head: Host, nodes: int) -> None:
    """Wait until Ray counts so many nodes."""
    active = re.compile(rf"Active:\s+{nodes} local\.cluster\.node\s")
    said = until(lambda: active.search(head.says("RAY_AUTH_MODE=token ray status")), f"{nodes} nodes have joined")
    print(f"# {said.group(0).split()[1]} nodes")


def finished(study: StudyFolder) -> int:
    """How many trials of the search have ended."""
    return sum(study.record(key).exists() for key in proposed(study))


def proposed(study: StudyFolder) -> set[str]:
    """The trials that were begun."""
    return {read_json(path)["trial"] for path in study.root.glob("search/*/*.json")}


def is_whole(study: StudyFolder, trials: int) -> None:
    """So many trials were begun, none failed, and there is a report."""
    keys = proposed(study)
    assert len(keys) == trials
    assert "failed" not in {read_json(study.record(key))["state"] for key in keys}
    assert (study.root / "report" / "report.html").exists()


def at_work(study: StudyFolder, workers: list[Host], running: subprocess.Popen[bytes]) -> Host | None:
    """A worker that is doing a trial while others have ended and more are to come."""
    assert running.poll() is None, "the study ended before a worker had a trial"
    if not 0 < finished(study) < TRIALS - 2:
        return None
    return next((host for host in workers if "ImplicitFunc.train" in host.says("ps -eo args")), None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
