"""Jobs and searches of a stage, run on Ray with a progress bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from study.core.console import Stage, console
from study.core.errors import Failed
from study.core.failures import Failure
from study.core.files import written
from study.core.layout import StudyFolder, trace_beside
from study.core.records import FailureRecord, write_record
from study.engine import cluster
from study.engine.cluster import NotShared
from study.engine.jobs import Done, Job, run_all
from study.settings import Study
from study.stages import outlay
from study.stages.plan import Plan

if TYPE_CHECKING:  # Optuna and Tune take seconds to import, and Ray reads its settings when it is imported
    from study.engine.optuna_search import SearchProblem
    from study.engine.team import Team


def run_jobs(name: str, jobs: Sequence[Job], study: Study) -> dict[str, str]:
    """Run independent jobs; returns what happened to each that failed, by name.

    Raises `Failed` if so many failed in a row that the others were not begun.
    """
    if not jobs:
        return {}
    cluster.start()
    folder, ended = StudyFolder(study.study_dir.absolute()), 0
    with Stage(name, len(jobs), "jobs") as stage:

        def done(job: Job, failure: Failure | None) -> None:
            nonlocal ended
            ended += 1
            stage.advance(f"{job.name}{f': {failure}' if failure else ''}", every=0 if failure else 5)

        failures = _run_all(jobs, done, study)
        told = noted(folder, name, failures)
        if ended < len(jobs):
            raise Failed(_stopped(name, told, f"{len(jobs) - ended} jobs were not begun"))
    return told


def _run_all(jobs: Sequence[Job], done: Done, study: Study) -> dict[str, Failure]:
    """Each by one process, or by a team."""
    if study.processes == 1:
        return run_all(jobs, done, at_once=max_concurrent(study), gpus=study.gpus_per_trial)
    from study.engine.team import run_on_team

    led = [replace(job, work=run_on_team, arguments=(job.work, job.arguments, team_of(study))) for job in jobs]
    return run_all(led, done, at_once=max_concurrent(study), gpus=0, cpus=0)


def raise_first(failures: Mapping[str, str]) -> None:
    """Raise `Failed` for the first of the jobs that failed: a study cannot go on without their results."""
    for name, failure in failures.items():
        raise Failed(f"{name}: {failure}")


def noted(folder: StudyFolder, stage: str, failures: Mapping[str, Failure]) -> dict[str, str]:
    """Write down what failed, for the report and whoever looks for the reason; returns it in words, by job."""
    told: dict[str, str] = {}
    for job, failure in failures.items():
        path = folder.failure(stage, job)
        trace = trace_beside(path)
        told[job] = str(failure)
        if failure.trace:
            with written(trace) as draft:
                draft.write_text(failure.trace, encoding="utf-8")
            told[job] += f"; its traceback is in {trace}" if failure.kind == "bug" else ""
        write_record(path, FailureRecord(stage, job, failure.kind, failure.message, trace.name * bool(failure.trace)))
    return told


def _stopped(stage: str, told: Mapping[str, str], why: str) -> str:
    listed = "".join(f"\n  {job}: {failure}" for job, failure in told.items())
    return (
        f"{stage} stops, and {why}:{listed}\nNothing of this is a result. Once the cause is gone, run the same command "
        "again to go on"
    )


def run_search(name: str, plan: Plan, search: SearchProblem[Any, Any]) -> None:
    """Run what is missing of a search.

    Raises `Failed` if a trial did not end, for what is proposed later depends on it, or if a machine does not see the
    study's folder.
    """
    study, missing = plan.study, search.missing()
    if missing:
        cut_before = search.cut()  # these are not among the missing ones
        cluster.start()
        from study.engine.trackers import trackers
        from study.engine.tune_runner import tune_search

        later = outlay.ahead(plan, name, max_concurrent(study)) if name == "search" else None
        with Stage(name, missing, "trials", later) as stage:
            alone = study.processes == 1
            try:
                failures = tune_search(
                    search,
                    at_once=max_concurrent(study),
                    gpus=study.gpus_per_trial if alone else 0,
                    team=None if alone else team_of(study),
                    logs=plan.folder.ray,
                    tell=stage.advance,
                    trackers=trackers(study.trackers, plan.folder.tracker, study.study_dir.name, _warn),
                )
            except NotShared as error:
                raise Failed(str(error)) from error
            if failures:
                told = noted(plan.folder, name, failures)
                raise Failed(_stopped(name, told, f"{search.missing()} trials are still to be run"))
            if (cut := search.cut() - cut_before) > 0:
                stage.advance(f"left out, as the budget of their method is used up: {cut}", cut)
            if (repeated := stage.total - stage.done) > 0:
                stage.advance(f"repeat an earlier trial and share its result: {repeated:g}", repeated)


def _warn(text: str) -> None:
    console.print(text, style="yellow", markup=False)


def cpus(study: Study) -> int:
    """Of a private Ray: one for each process of each job and for who leads a team, and one for each teacher."""
    return max(study.teachers, study.workers * (study.processes + 1 if study.processes > 1 else 1))


def max_concurrent(study: Study) -> int:
    """How many jobs may be asked for together: a cluster may grow to the number asked, a machine's GPUs do not."""
    if not cluster.is_private(study.address) or not study.gpus_per_trial:
        return study.workers
    return max(1, min(study.workers, int(cluster.gpus() / study.gpus_per_trial)))


def team_of(study: Study) -> Team:
    """Who does each job of a study together."""
    from study.engine.team import Team

    logs = StudyFolder(study.study_dir.absolute()).ray
    return Team(study.processes, study.gpus_per_trial > 0, logs, sharded=study.sharded)
