"""Jobs and searches of a stage, run on Ray with a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from study.core.console import Stage
from study.core.errors import Failed
from study.core.layout import StudyFolder
from study.engine import cluster
from study.engine.cluster import NotShared
from study.engine.jobs import Job, run_all
from study.settings import Study
from study.stages import outlay
from study.stages.plan import Plan

if TYPE_CHECKING:  # Optuna and Tune take seconds to import, and Ray reads its settings when it is imported
    from study.engine.optuna_search import SearchProblem
    from study.engine.team import Team


def run_jobs(name: str, jobs: Sequence[Job], study: Study) -> dict[str, str]:
    """Run independent jobs; returns the error of each that failed, by name."""
    if not jobs:
        return {}
    cluster.start()
    with Stage(name, len(jobs), "jobs") as stage:

        def done(job: Job, error: str) -> None:
            stage.advance(f"{job.name}{': ' + error if error else ''}", every=0 if error else 5)

        if study.processes == 1:
            return run_all(jobs, done, at_once=max_concurrent(study), gpus=study.gpus_per_trial)
        from study.engine.team import run_on_team

        led = [Job(job.name, run_on_team, (job.work, job.arguments, team_of(study))) for job in jobs]
        return run_all(led, done, at_once=max_concurrent(study), gpus=0, cpus=0)


def run_search(name: str, plan: Plan, search: SearchProblem[Any, Any]) -> None:
    """Run what is missing of a search. Raises `Failed` if a machine does not see the study's folder."""
    study, missing = plan.study, search.missing()
    if missing:
        cluster.start()
        from study.engine.tune_runner import tune_search

        later = outlay.ahead(plan, name, max_concurrent(study)) if name == "search" else None
        with Stage(name, missing, "trials", later) as stage:
            alone = study.processes == 1
            try:
                tune_search(
                    search,
                    at_once=max_concurrent(study),
                    gpus=study.gpus_per_trial if alone else 0,
                    team=None if alone else team_of(study),
                    logs=plan.folder.ray,
                    tell=stage.advance,
                )
            except NotShared as error:
                raise Failed(str(error)) from error
            if (cut := search.cut()) > 0:
                stage.advance(f"{cut} trials are left out: the budget of their method is used up", cut)
            if (repeated := stage.total - stage.done) > 0:
                stage.advance(f"{repeated:g} trials repeat an earlier one and share its result", repeated)


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
