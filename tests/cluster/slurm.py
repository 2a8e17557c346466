"""Both recipes of docs/recipes on a Slurm of three hosts: a login node, and two nodes that compute.

To be run with `hosts.ALONE` and an empty folder; prints what the user types and what matters of the answers. The home
folder is shared, as on most clusters. Of a recipe only the study that is run is replaced; what a cluster allows is said
to `sbatch`.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from study.core.layout import StudyFolder
from tests.cluster.hosts import USER, Host, network
from tests.cluster.ray_up import COPY, finished, idle, proposed, shown, typed, until

HOME = "/shared/home"
TRIALS = 60
RECIPES = ("study", "study-nodes")
GIVEN = 'llava_1_5_7b --model "$MODEL" --benchmark "mllmu:$DATA"'
STUDY = (
    f"smoke --methods gradient_ascent --trials {TRIALS} --forget-ratios 10 --confirm-seeds 0 --no-metric-check"
    " --early-stopping off"
)
SMALL = "--gpus-per-node=0 --cpus-per-task=2 --mem=4G"
CONF = """\
ClusterName=hosts
SlurmctldHost=login(10.0.0.250)
SlurmUser=root
SlurmdUser=root
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
NodeName=first NodeAddr=10.0.0.1 CPUs=2 RealMemory=8000
NodeName=second NodeAddr=10.0.0.2 CPUs=2 RealMemory=8000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def main(folder: Path) -> None:
    """The whole run; raises `AssertionError` at the first step that does not end as it should."""
    network(folder)
    login = Host("login", "10.0.0.250", folder)
    nodes = [Host("first", "10.0.0.1", folder), Host("second", "10.0.0.2", folder)]
    started(folder, login, nodes)
    typed(login, COPY)
    for recipe in RECIPES:
        adapted(folder / "shared" / "home" / "app" / "docs" / "recipes" / f"{recipe}.sbatch")

    one = StudyFolder(folder / "shared" / "runs" / "one")
    log = folder / "shared" / "home" / "app" / "study-1.log"
    submitted(login, "study", "one", "--time=2 --signal=USR1@60")
    until(lambda: "Restarts=1" in login.says("scontrol show job 1"), "the time ends and the job is queued again")
    print(*[line for line in shown(log).splitlines() if line.startswith(("finishing", "interrupted"))], sep="\n")
    print(f"# queued again after {finished(one)} of {TRIALS} trials")
    as_root(login, "scontrol update JobId=1 TimeLimit=60")  # else it takes as many hours as the machine is busy
    ended(login, 1, "COMPLETED", log)

    several = StudyFolder(folder / "shared" / "runs" / "several")
    log = log.with_name("study-2.log")
    submitted(login, "study-nodes", "several", "--nodes=2")
    until(lambda: finished(several) > 1, "a trial of the search has ended")
    typed(login, "scancel 2")
    ended(login, 2, "CANCELLED", log)
    for node in nodes:
        until(partial(idle, node), f"Ray ends on {node.name}")
    print(f"# cancelled after {finished(several)} of {TRIALS} trials")
    submitted(login, "study-nodes", "several", "--nodes=2")
    ended(login, 3, "COMPLETED", log.with_name("study-3.log"))
    assert finished(several) == len(proposed(several))


def started(folder: Path, login: Host, nodes: list[Host]) -> None:
    """Slurm on all hosts, and a home that they share."""
    place = folder / "shared" / "slurm"
    place.mkdir()
    (place / "slurm.conf").write_text(CONF)
    (place / "cgroup.conf").write_text("# no control groups\n")
    names = "".join(f"{host.address} {host.name}\n" for host in (login, *nodes))
    for host in (login, *nodes):
        as_root(host, "cp /shared/slurm/*.conf /etc/slurm/")
        as_root(host, f"printf '{names}' >> /etc/hosts")
        if host is login:
            as_root(host, "dd if=/dev/urandom of=/shared/slurm/munge.key bs=1 count=1024 status=none")
            as_root(host, f"cp -a /home/{USER} {HOME}")
        as_root(host, f"usermod --home {HOME} {USER}")
        as_root(host, "install -o munge -m 400 /shared/slurm/munge.key /etc/munge/munge.key")
        as_root(host, "mkdir -p /var/spool/slurmctld /var/spool/slurmd && install -d -o munge -m 755 /run/munge")
        as_root(host, "runuser -u munge munged -- --force")
        as_root(host, "slurmctld" if host is login else "slurmd")
    until(lambda: "all* up infinite 2 idle" in " ".join(login.says("sinfo").split()), "both nodes are idle")


def as_root(host: Host, line: str) -> None:
    """What the administrator of the cluster types."""
    done = subprocess.run(host.command(line, "root"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def adapted(recipe: Path) -> None:
    """A recipe with a study that takes minutes."""
    text = recipe.read_text(encoding="utf-8")
    assert text.count(GIVEN) == 1
    recipe.write_text(text.replace(GIVEN, STUDY), encoding="utf-8")


def submitted(login: Host, recipe: str, name: str, options: str) -> None:
    """Submit a recipe for a study."""
    typed(login, f"cd app && STUDY_DIR=/shared/runs/{name} sbatch {SMALL} {options} docs/recipes/{recipe}.sbatch")


def ended(login: Host, job: int, state: str, log: Path) -> None:
    """Wait for the end of a job, which must be of that kind."""
    states = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
    found = until(
        lambda: next((one for one in states if f"JobState={one}" in login.says(f"scontrol show job {job}")), ""),
        f"job {job} ends",
    )
    assert found == state, f"{found}\n{shown(log)}"
    print(f"# job {job}: {found}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
