"""Learn, search, confirm, attack, report: each stage is skipped where its results are on disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from study.core import erasure, inventory
from study.core.console import console, table
from study.core.errors import Damaged, Failed, Refused
from study.core.files import sweep
from study.core.layout import StudyFolder
from study.core.lock import locked
from study.core.mirror import fetch, mirrored, place, shown
from study.engine import cluster
from study.experiment.dropping import drop_losers
from study.settings import Study
from study.stages import gate, outlay
from study.stages.attack import attack_winners, search_attacks
from study.stages.known import measured
from study.stages.launch import cpus, run_search
from study.stages.learn import attack_baselines, learn_models
from study.stages.manifest import GROWING, settle
from study.stages.meta_evaluation import meta_evaluate
from study.stages.methods_from import with_earlier_winners
from study.stages.plan import Plan
from study.stages.preflight import validate_study
from study.stages.printed_plan import print_plan
from study.stages.race import race
from study.stages.search import choose_fronts, choose_winners, judge, search_of
from study.stages.supported import check_gpus
from study.stages.winners import confirm, score_by_official_protocol, sequential_unlearning


def run(study: Study) -> int:
    """Run a study to its report; returns the exit status. Raises `Refused` or `ValueError` before any
    training, and `Failed` if the study cannot go on."""
    erasure.check(StudyFolder(study.study_dir.absolute()))
    if study.dry_run:
        with tempfile.TemporaryDirectory() as data:
            plan = validate_study(with_earlier_winners(study), Path(data))
            print_plan(plan)
        check_gpus(
            study, torch.cuda.device_count
        )  # said last: a plan may be made on a machine other than the one that does it
        return 0
    _fetch(study)
    folder = StudyFolder(study.study_dir.absolute())
    lost = inventory.lost(folder)
    early = {name for name in lost if (folder.root / name).is_relative_to(folder.data)}
    if early:
        with _own(folder):  # the plan reads these, so they are made anew before it
            inventory.make_room(folder, early)
    study = with_earlier_winners(study)
    plan = validate_study(study, folder.data)
    plan.root.mkdir(parents=True, exist_ok=True)
    with _own(folder), mirrored(plan.root, study.storage, _warn):
        for name in lost:
            _warn(f"{folder.root / name} is missing: it is computed again")
        inventory.make_room(folder, set(lost) - early)
        print_plan(plan)
        inventory.clear(folder)
        if gone := settle(plan):
            console.print(f"settings changed before the search began: models {', '.join(gone)} are removed")
        outlay.note(plan)
        ray = cluster.started(
            study.address, cpus(study), study.threads, plan.root, preloaded="study.stages.worker_template"
        )
        shutil.rmtree(plan.folder.failures, ignore_errors=True)  # what failed in the last run is tried again
        shutil.rmtree(plan.folder.ray, ignore_errors=True)  # the logs of the last run
        sweep(plan.folder.drafts())
        try:
            with cluster.on_demand(ray, lambda: _check_cluster(plan)):
                failures = _stages(plan)
            inventory.take(plan.folder)
            _finish(plan, failures)
        except Damaged as error:
            raise Failed(str(error)) from error
    return 1 if failures else 0


@contextmanager
def _own(folder: StudyFolder) -> Iterator[None]:
    """Lock a study that was not purged while it was planned."""
    with locked(folder):
        erasure.check(folder)
        yield


def _fetch(study: Study) -> None:
    """Fetch the study from its storage address if its folder does not exist."""
    if study.storage and (files := fetch(place(study.storage), study.study_dir.absolute(), growing=GROWING)):
        console.print(f"storage: {files} files fetched from {shown(study.storage)}", markup=False)


def _warn(text: str) -> None:
    console.print(text, style="yellow", markup=False)


def _stages(plan: Plan) -> list[str]:
    """All stages; returns what failed on the way."""
    context = learn_models(plan)
    context = measured(plan, context, gate.check(plan))
    attack_baselines(plan, context)
    search = search_of(plan, context)
    run_search("search", plan, search)
    judged = judge(search)
    failures = [f"{method}: every trial at {ratio} % failed" for (method, ratio), there in judged.items() if not there]
    races = race(plan, search, judged)
    winners, fronts = choose_winners(plan, judged, races), choose_fronts(plan, judged)
    defaults = [t for field in races.values() if field.default for t in field.runs(field.default)]
    failures += confirm(plan, context, [*winners, *fronts, *defaults])
    if plan.study.keep == "winners" and not failures:  # what failed may be needed when it is run again
        raced = [t for field in races.values() for contender in field.contenders for t in field.runs(contender)]
        drop_losers(plan.folder, {t.key for t in (*winners, *fronts, *raced)})
    failures += score_by_official_protocol(plan, context, winners)
    failures += sequential_unlearning(plan, context, winners)
    failures += attack_winners(plan, context, winners, fronts)
    failures += search_attacks(plan, context, winners)
    failures += meta_evaluate(plan, context)
    return failures


def _check_cluster(plan: Plan) -> None:
    """What can be refused once it is known what Ray has."""
    check_gpus(plan.study, cluster.gpus)
    _check_shared(plan)


def _check_shared(plan: Plan) -> None:
    """On a cluster every node must see the study's folder; those that join later are asked by their first job."""
    blind = [] if cluster.is_private(plan.study.address) else cluster.blind_nodes(plan.root)
    if blind:
        raise Refused(
            f"study_dir={plan.root} is not visible on {', '.join(blind)}: every node must mount the same folder at "
            "that path (NFS, EFS, FSx, Filestore); choose such a --study-dir, or leave --address out to use this "
            "machine alone"
        )


def _finish(plan: Plan, failures: Sequence[str]) -> None:
    from analysis import report

    outcome = report.build(plan.root, checked=False)  # its files have just been written down
    for title, frame in (("Winners", outcome.winners), ("Recovery under attack", outcome.recovery)):
        table(title, list(frame.columns), frame.to_numpy().tolist())
    if outcome.pasted:
        where = f"--methods-from {plan.study.study_dir}"
        console.print(f"Winners, to be written after --methods, or all at once with {where}:", markup=False)
    for text in outcome.pasted:
        console.print(f"  {text}", markup=False)
    for check in outcome.checks:
        console.print(f"check: {check}", markup=False)
    for failure in failures:
        console.print(f"failed: {failure}", markup=False)
    console.print(f"Report: {outcome.page}", markup=False)
