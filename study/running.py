"""Learning, jobs and searches, run on Ray with a bar on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from study import cluster
from study.cluster import Job
from study.console import Stage
from study.contracts import Learned
from study.plan import Plan
from study.settings import Study

if TYPE_CHECKING:  # Optuna and Tune take seconds to import, and Ray reads its settings when it is imported
    from study.series import Series
    from study.trial import Bench
    from study.workers import Team


def teach(plan: Plan, bench: Bench, models: Sequence[Learned]) -> None:
    """Teach those of the models that are not on disk, side by side or each by several workers.

    Raises `Failed` if one cannot be taught.
    """
    from study.workers import learn_all  # Ray Train takes seconds to import; a dry run does without

    study = plan.study
    missing = [m for m in dict.fromkeys(models) if not (plan.folder.learned(m.key) / "learned.json").exists()]
    if not missing:
        return
    names = {m: _called(m, study) for m in missing}
    with Stage("learn", study.learn.steps * len(missing), f"steps, {', '.join(names.values())}") as stage:
        progress: dict[Learned, int] = dict.fromkeys(missing, 0)

        def tell(model: Learned, steps: int) -> None:
            if steps > progress[model]:
                gained, progress[model] = steps - progress[model], steps
                stage.advance(f"{names[model]} at step {steps}", gained, every=10)

        gpus, together = min(study.gpus_per_trial, 1.0), study.teachers > 1
        at_once = min(len(missing), _at_once(study)) if gpus else len(missing)
        workers = study.teachers if together else at_once
        cpus = 1.0 if gpus else min(1.0, study.workers / workers)
        learn_all(
            bench,
            missing,
            workers=workers,
            cpus=cpus,
            gpus=gpus,
            on_progress=tell,
            together=together,
            sharded=study.sharded,
        )


def run_jobs(name: str, jobs: Sequence[Job], study: Study) -> dict[str, str]:
    """Run independent jobs; returns the error of each that failed, by name."""
    if not jobs:
        return {}
    with Stage(name, len(jobs), "jobs") as stage:

        def done(job: Job, error: str) -> None:
            stage.advance(f"{job.name}{': ' + error if error else ''}", every=0 if error else 5)

        if study.processes == 1:
            return cluster.run_all(jobs, done, at_once=_at_once(study), gpus=study.gpus_per_trial)
        from study.workers import together

        led = [Job(job.name, together, (job.work, job.arguments, _team(study))) for job in jobs]
        return cluster.run_all(led, done, at_once=_at_once(study), gpus=0, cpus=0)


def run_search(name: str, plan: Plan, search: Series[Any]) -> None:
    """Run what is missing of a search."""
    from study.tuning import search_all

    study, missing = plan.study, search.missing()
    if missing:
        with Stage(name, missing, "trials") as stage:
            alone = study.processes == 1
            search_all(
                search,
                at_once=_at_once(study),
                gpus=study.gpus_per_trial if alone else 0,
                team=None if alone else _team(study),
                logs=plan.root / "ray",
                tell=stage.advance,
            )
            if (repeated := stage.total - stage.done) > 0:
                stage.advance(f"{repeated:g} proposals repeat an earlier one and share its result", repeated)


def _called(model: Learned, study: Study) -> str:
    name = model.kind if model.ratio is None else f"{model.kind} {model.ratio} %"
    return name if model.seed == study.seed else f"{name} seed {model.seed}"


def cpus(study: Study) -> int:
    """Of a private Ray: one for each process of each job and for who leads a team, and one for each teacher."""
    return max(study.teachers, study.workers * (study.processes + 1 if study.processes > 1 else 1))


def _at_once(study: Study) -> int:
    """How many jobs may be asked for together: a cluster may grow to the number asked, a machine's GPUs do not."""
    if not cluster.is_private(study.address) or not study.gpus_per_trial:
        return study.workers
    return max(1, min(study.workers, int(cluster.gpus() / study.gpus_per_trial)))


def _team(study: Study) -> Team:
    """Who does each job of a study together."""
    from study.workers import Team

    logs = study.study_dir.absolute() / "ray"
    return Team(study.processes, study.gpus_per_trial > 0, logs, sharded=study.sharded)
