"""Jobs and searches, run on Ray with a bar on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from study import cluster
from study.cluster import Job
from study.console import Stage
from study.plan import Plan
from study.presets import Study

if TYPE_CHECKING:  # Optuna and Tune take seconds to import, and Ray reads its settings when it is imported
    from study.series import Series


def run_jobs(name: str, jobs: Sequence[Job], study: Study) -> dict[str, str]:
    """Run independent jobs; returns the error of each that failed, by name."""
    if not jobs:
        return {}
    with Stage(name, len(jobs), "jobs") as stage:

        def done(job: Job, error: str) -> None:
            stage.advance(f"{job.name}{': ' + error if error else ''}", every=0 if error else 5)

        return cluster.run_all(jobs, done, gpus=study.gpus_per_trial)


def run_search(name: str, plan: Plan, search: Series[Any]) -> None:
    """Run what is missing of a search."""
    from study.tuning import search_all

    study, missing = plan.study, search.missing()
    if missing:
        with Stage(name, missing, "trials") as stage:
            search_all(
                search, at_once=study.workers, gpus=study.gpus_per_trial, logs=plan.root / "ray", tell=stage.advance
            )
            if repeated := stage.total - stage.done:
                stage.advance(f"{repeated:g} proposals repeat an earlier one and share its result", repeated)
