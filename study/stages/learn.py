"""The stage that makes the base model, teaches vanilla and the references, and scores them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from study.contracts import Attack, BaseModel
from study.core.console import Stage
from study.core.errors import Failed
from study.core.files import read_json, read_object, write_json
from study.core.hashing import content_key
from study.core.layout import StudyFolder
from study.core.repeating import repeated
from study.core.rows import read_rows
from study.engine import cluster
from study.engine.failures import Reported
from study.engine.jobs import Job, run_all
from study.engine.world import ALONE, world
from study.experiment import attack, trial
from study.experiment.adopt import adopt
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.metrics.recovery import objective
from study.model.loading import Loading
from study.settings import Study
from study.stages.base_check import check_base
from study.stages.launch import max_concurrent, noted, raise_first, run_jobs
from study.stages.measurable import base_jobs
from study.stages.plan import Plan, label
from study.training.loop import OnStep

RELAYED = 1.0
"""Seconds between two looks at how far the models are: a bar that moves once a second is alive."""


def learn_models(plan: Plan) -> StudyContext:
    """The base model, which is tried, then vanilla and the references side by side, then their scores."""
    study = plan.study
    device = "cuda" if study.gpus_per_trial else "cpu"
    loading = Loading.of(plan.model)
    context = StudyContext(
        plan.root, plan.source, _base(plan), device, study.forget_attributes, loading, scored_error=study.scored_error
    )
    check_base(plan, context)
    _adopt_given(plan, context)
    teach(plan, context, [t.start for ratio in study.forget_ratios for t in plan.baselines(ratio)])
    jobs = [
        Job(label(t), _baseline, (context, t, plan.reference(t.ratio).key))
        for ratio in study.forget_ratios
        for t in plan.baselines(ratio)
        if not _is_scored(plan.folder, t)
    ]
    raise_first(run_jobs("score", [*jobs, *base_jobs(plan, context)], study))
    return context


def attack_baselines(plan: Plan, context: StudyContext) -> None:
    """Attack vanilla and the references like every trial, if every trial is to be attacked."""
    attacker = plan.study.search_attack()
    if attacker is None:
        return
    jobs = [
        Job(label(t), attack.attack_trial, (context, t, attacker, plan.reference(t.ratio).key))
        for ratio in plan.study.forget_ratios
        for t in plan.baselines(ratio)
        if attack.attack_state(plan.folder, t, attacker) != "complete"
    ]
    raise_first(run_jobs("controls", jobs, plan.study))
    _check_controls(plan, attacker)


def _adopt_given(plan: Plan, context: StudyContext) -> None:
    """Keep the models that are brought, the base model among them where it stands for the references."""
    missing = [model for model in plan.given if not plan.folder.learned_record(model.key).exists()]
    if missing:
        with Stage("adopt", len(missing), "models") as stage:
            for model in missing:
                adopt(plan.folder, model, plan.given[model] or context.base, context.base, context.loading)
                stage.advance(model.kind)


def _base(plan: Plan) -> Path:
    """The base model's folder, made first if it is one that is made."""
    if plan.model.path is not None:
        return plan.model.path.absolute()  # found, and looked at, when the plan was made
    note = plan.folder.base_model
    if not (note.exists() and (plan.root / str(read_object(note, "path")["path"])).exists()):
        with Stage("base", 1, "model") as stage:
            jobs = [Job(plan.study.model, _make_base, (plan.model, plan.folder, note))]
            failures = run_all(jobs, lambda job, failure: stage.advance(str(failure or "ready")), at_once=1, gpus=0)
            raise_first(noted(plan.folder, "base", failures))
    return plan.root / str(read_object(note, "path")["path"])


def _make_base(model: BaseModel, folder: StudyFolder, note: Path) -> None:
    """Make the base model inside the study and note where it is."""
    path = model(folder.data).absolute()
    write_json(note, {"path": str(path.relative_to(folder.root))})


def _is_scored(folder: StudyFolder, baseline: Trial) -> bool:
    """Whether vanilla or a reference has a record and all of its rows."""
    rows = (folder.rows(baseline.key, name) for name in ("select", "report", "blind"))
    return all(path.exists() for path in (folder.record(baseline.key), *rows))


def _baseline(context: StudyContext, baseline: Trial, reference: str) -> None:
    """Score vanilla or the reference."""
    trial.run(context, baseline, reference)
    trial.report(context, baseline, blind=True)


def _check_controls(plan: Plan, attacker: Attack | None) -> None:
    """Recovery is measured against the reference under the same attack, which must therefore yield numbers."""
    for t in (plan.control(ratio) for ratio in plan.study.forget_ratios if attacker):
        rows = read_rows(plan.folder.attack(t.key, content_key(attacker)))
        if math.isnan(objective(rows, rows, "select", utility=1.0, keeps=0.0)):
            raise Failed(
                f"robustness={plan.study.robustness!r}: the reference at {t.ratio} % collapses before the first step "
                "of the attack is scored, so there is no control; choose a milder attack and another --study-dir"
            )


def teach(plan: Plan, context: StudyContext, models: Sequence[Learned]) -> None:
    """Teach those of the models that are not on disk, side by side or each by several workers.

    Raises `Failed` if one cannot be taught.
    """
    study = plan.study
    missing = [m for m in dict.fromkeys(models) if not plan.folder.learned_record(m.key).exists()]
    if not missing:
        return
    names = {m: _called(m, study) for m in missing}
    with Stage("learn", sum(model.schedule.steps for model in missing), f"steps, {', '.join(names.values())}") as stage:
        progress: dict[Learned, int] = dict.fromkeys(missing, 0)

        def tell(model: Learned, steps: int) -> None:
            if steps > progress[model]:
                gained, progress[model] = steps - progress[model], steps
                stage.advance(f"{names[model]} at step {steps}", gained, every=10)

        gpus, together = min(study.gpus_per_trial, 1.0), study.teachers > 1
        # Here all models begin at once and share the cores; parts of cores do not pack on the nodes of a cluster.
        all_at_once = not gpus and cluster.is_private(study.address)
        at_once = len(missing) if all_at_once else min(len(missing), max_concurrent(study))
        workers = study.teachers if together else at_once
        cpus = 1.0 if gpus else min(1.0, study.workers / workers)
        learn_all(
            context,
            missing,
            workers=workers,
            cpus=cpus,
            gpus=gpus,
            on_progress=tell,
            together=together,
            sharded=study.sharded,
        )


def _called(model: Learned, study: Study) -> str:
    name = model.kind if model.ratio is None else f"{model.kind} {model.ratio} %"
    return name if model.seed == study.seed else f"{name} seed {model.seed}"


OnProgress = Callable[[Learned, int], None]


def learn_all(
    context: StudyContext,
    models: Sequence[Learned],
    *,
    workers: int,
    cpus: float,
    gpus: float,
    on_progress: OnProgress,
    together: bool = False,
    sharded: bool = False,
) -> None:
    """Teach models side by side: one Ray Train run whose workers share the models out among themselves.

    Each worker has `cpus` and `gpus` and teaches one model after the other; nothing is synchronized between them,
    unless they teach `together`: then all teach the first model, then the second, each a share of every batch, and
    its weights sharded if `sharded`. Where a worker dies the run begins once more, and where one of those that
    teach together runs out of memory in finer chunks; what was already learned is not learned again.
    `on_progress(model, steps)` is called now and then.
    """
    cluster.start()  # Ray reads its settings when it is imported: not before they are set
    from study.engine.team import run_workers

    try:
        with repeated(partial(_relay, context.folder, models, on_progress), RELAYED):
            run_workers(
                _teach,
                (context, models, together),
                workers,
                cpus=cpus,
                gpus=gpus,
                logs=context.folder.ray,
                nccl=together and gpus > 0,
                sharded=sharded,
                restarts=1,
            )
    except Reported as error:
        raise_first(noted(context.folder, "learn", {"learning": error.failure}))
    except SystemExit as stopped:  # how Ray Train answers Ctrl-C
        raise KeyboardInterrupt from stopped


def _teach(context: StudyContext, models: Sequence[Learned], together: bool) -> None:
    """What each worker does: teach its share of the models, or of each model, and note how far each is."""
    among = world()
    if not together:
        torch.distributed.destroy_process_group()  # in a group, transformers would save the model of rank 0 alone
        among, models = ALONE, among.share(models)
    for model in models:
        if among.rank == 0:
            context.folder.progress(model.key).unlink(missing_ok=True)  # a run that was killed left one
        done = context.folder.learned_record(model.key)
        if not among.broadcast_from_first(done.exists):
            learn(context, model, _noting(context.folder, model))


def _noting(folder: StudyFolder, model: Learned) -> OnStep:
    path, every = folder.progress(model.key), max(1, model.schedule.steps // 20)  # twenty notes of each model

    def on_step(done: int, loss: float) -> None:
        if done % every == 0:
            write_json(path, {"steps": done, "loss": loss})

    return on_step


def _relay(folder: StudyFolder, models: Sequence[Learned], on_progress: OnProgress) -> None:
    """Relay the progress files: a report to Ray Train would hold the worker up until the controller polls it."""
    for model in models:
        path = folder.progress(model.key)
        if path.exists():
            on_progress(model, int(read_json(path)["steps"]))
