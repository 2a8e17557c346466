"""Learn, search, confirm, attack, report: each stage is skipped where its results are on disk."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from study.core.console import console, table
from study.core.errors import Refused
from study.core.layout import StudyFolder
from study.core.mirror import fetch, mirrored, place
from study.engine import cluster
from study.experiment.dropping import drop_losers
from study.settings import Study
from study.stages import gate
from study.stages.attack import attack_winners, search_attacks
from study.stages.launch import cpus, run_search
from study.stages.learn import learn_models
from study.stages.manifest import GROWING, settle
from study.stages.meta_evaluation import meta_evaluate
from study.stages.plan import Plan, print_plan
from study.stages.preflight import validate_study
from study.stages.search import choose_fronts, choose_winners, judge, search_of
from study.stages.winners import confirm, score_by_official_protocol, sequential_unlearning


def run(study: Study) -> int:
    """Run a study to its report; returns the exit status. Raises `Refused` or `ValueError` before any
    training, and `Failed` if the study cannot go on."""
    if study.dry_run:
        with tempfile.TemporaryDirectory() as data:
            print_plan(validate_study(study, Path(data)))
        return 0
    _fetch(study)
    plan = validate_study(study, StudyFolder(study.study_dir.absolute()).data)
    print_plan(plan)
    plan.root.mkdir(parents=True, exist_ok=True)
    with _locked(plan.folder), mirrored(plan.root, study.storage, _warn):
        settle(plan)
        ray = cluster.started(
            study.address, cpus(study), study.threads, plan.root, preloaded="study.stages.worker_template"
        )
        with cluster.on_demand(ray, lambda: _check_cluster(plan)):
            failures = _stages(plan)
        _finish(plan, failures)
    return 1 if failures else 0


def _fetch(study: Study) -> None:
    """Fetch the study from its storage address if its folder does not exist."""
    if study.storage and (files := fetch(place(study.storage), study.study_dir.absolute(), growing=GROWING)):
        console.print(f"storage: {files} files fetched from {study.storage}", markup=False)


def _warn(text: str) -> None:
    console.print(text, style="yellow", markup=False)


def _stages(plan: Plan) -> list[str]:
    """All stages; returns what failed on the way."""
    context = learn_models(plan)
    gate.check(plan)
    search = search_of(plan, context)
    run_search("search", plan, search)
    judged = judge(search)
    failures = [f"{method}: every trial at {ratio} % failed" for (method, ratio), there in judged.items() if not there]
    winners, fronts = choose_winners(plan, judged), choose_fronts(plan, judged)
    if plan.study.keep == "winners":
        drop_losers(plan.folder, {t.key for t in (*winners, *fronts)})
    failures += confirm(plan, context, [*winners, *fronts])
    failures += score_by_official_protocol(plan, context, winners)
    failures += sequential_unlearning(plan, context, winners)
    failures += attack_winners(plan, context, winners, fronts)
    failures += search_attacks(plan, context, winners)
    failures += meta_evaluate(plan, context)
    return failures


def _check_cluster(plan: Plan) -> None:
    """What can be refused once it is known what Ray has."""
    _check_resources(plan)
    _check_shared(plan)


def _check_resources(plan: Plan) -> None:
    """A job that no machine can run would wait forever; a cluster may still grow, this machine does not."""
    wanted, there = plan.study.gpus_per_trial, cluster.gpus()
    if not cluster.is_private(plan.study.address):
        return
    if wanted > there:
        raise Refused(f"gpus_per_trial={wanted:g} but this machine has {there:g} GPUs; set --gpus-per-trial 0")
    if wanted and (together := plan.study.workers_per_model) > there:
        raise Refused(
            f"workers_per_model={together} processes need a GPU each, but this machine has {there:g}; use at "
            "most that many"
        )


def _check_shared(plan: Plan) -> None:
    """On a cluster every node must see the study's folder; those that join later are asked by their first job."""
    blind = [] if cluster.is_private(plan.study.address) else cluster.blind_nodes(plan.root)
    if blind:
        raise Refused(
            f"study_dir={plan.root} is not visible on {', '.join(blind)}: every node must mount the same folder at "
            "that path (NFS, EFS, FSx, Filestore); choose such a --study-dir, or leave --address out to use this "
            "machine alone"
        )


@contextmanager
def _locked(folder: StudyFolder) -> Iterator[None]:
    """Lock the study's folder; the lock of a dead process is free. Raises `Refused` naming the owner if in use."""
    with folder.lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise Refused(
                f"{folder.root} is in use by {lock.read().strip() or 'another process'}; wait for it to end"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


def _finish(plan: Plan, failures: Sequence[str]) -> None:
    from analysis import report

    outcome = report.build(plan.root)
    for title, frame in (("Winners", outcome.winners), ("Recovery under attack", outcome.recovery)):
        table(title, list(frame.columns), frame.to_numpy().tolist())
    for failure in failures:
        console.print(f"failed: {failure}", markup=False)
    console.print(f"Report: {outcome.page}", markup=False)
