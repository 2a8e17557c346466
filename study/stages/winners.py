"""Stages for winners: confirmation on further seeds, the official protocol, sequential unlearning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from study.contracts import Attack
from study.core.files import write_json
from study.core.layout import StudyFolder, record_beside
from study.core.rows import write_rows
from study.data.official_protocol import VERSION, OfficialProtocol
from study.engine.jobs import Job
from study.evaluation.official_scoring import score_official
from study.experiment import attack, checkpoints, records, trial
from study.experiment.checkpoints import borrowed
from study.experiment.context import StudyContext
from study.experiment.sequential import run_sequential
from study.experiment.trial_spec import Trial
from study.model.flop_counter import counted
from study.stages.ended import scored_officially
from study.stages.launch import run_jobs
from study.stages.plan import Plan, label
from study.stages.search import first_seeds

DRAW = 0  # of the examples and test pictures: the same for every model, so that models can be compared


def confirm(plan: Plan, context: StudyContext, winners: Sequence[Trial]) -> list[str]:
    """Run winners with the seeds that the race left out and score them, fronts and defaults, on the test half."""
    attacker = plan.study.search_attack()
    jobs = [
        Job(
            f"{label(t)} seed {t.seed} ({t.key})",
            _confirmed,
            (context, t, plan.reference(t.ratio).key, attacker),
            partial(_too_small, plan.folder, t, attacker),
        )
        for t in dict.fromkeys(winners)
        if _unconfirmed(plan.folder, t, attacker)
    ]
    errors = run_jobs("confirm", jobs, plan.study)
    return [f"confirming {name}: {error}" for name, error in errors.items()]


def _unconfirmed(folder: StudyFolder, t: Trial, attacker: Attack | None) -> bool:
    """Whether a trial is still to be run, scored or attacked: one that ended badly is none of these."""
    record = records.existing_record(folder, t)
    if record is not None and record.state != "complete":
        return False
    unattacked = attacker is not None and attack.attack_state(folder, t, attacker) == "unfinished"
    return unattacked or not folder.rows(t.key, "report").exists()


def _confirmed(context: StudyContext, confirmed: Trial, reference: str, attacker: Attack | None) -> None:
    if trial.run(context, confirmed, reference).state == "complete":
        trial.report(context, confirmed)
        if attacker:
            attack.try_attack(context, confirmed, attacker, reference)


def _too_small(folder: StudyFolder, t: Trial, attacker: Attack | None, reason: str) -> bool:
    """As `attack.too_small`. A trial that has ended well but cannot be scored has no result that says so: it stays
    open."""
    unscored = records.is_complete(folder, t) and not folder.rows(t.key, "report").exists()
    return not unscored and attack.too_small(folder, t, attacker, reason)


def score_by_official_protocol(plan: Plan, context: StudyContext, winners: Sequence[Trial]) -> list[str]:
    """Score baselines and winners that have not been, if the study asks for it; returns what failed."""
    models = [*(t for ratio in plan.study.forget_ratios for t in plan.baselines(ratio)), *winners]
    jobs = [
        Job(f"{label(t)} seed {t.seed}", _score, (context, t))
        for t in dict.fromkeys(models)
        if plan.study.released and records.is_complete(plan.folder, t) and not scored_officially(plan.folder, t.key)
    ]
    errors = run_jobs("official", jobs, plan.study)
    return [f"official protocol on {name}: {error}" for name, error in errors.items()]


def _score(context: StudyContext, scored: Trial) -> None:
    assert isinstance(context.source, OfficialProtocol)  # checked before any work
    asks = list(context.source.released(context.benchmark.split(scored.ratio), context.folder.data, DRAW))
    with borrowed(context.root, scored.start.key, context.device) as (vlm, _):
        unlearned, _ = checkpoints.unlearned_model(context.folder, scored.key, vlm)
        with counted(unlearned) as work:
            rows = score_official(unlearned, asks)
    path = context.folder.rows(scored.key, "released")
    write_rows(path, rows)  # first: they count once a record says of which version they are
    write_json(record_beside(path), {"protocol": VERSION, **trial.together(work).amounts()})


def sequential_unlearning(plan: Plan, context: StudyContext, winners: Sequence[Trial]) -> list[str]:
    """Unlearn each winner's forget set in several requests, one after another."""
    count = plan.study.requests
    jobs = [
        Job(f"{label(t)} in {count} requests", run_sequential, (context, t, count, plan.reference(t.ratio).key))
        for t in first_seeds(plan, winners)
        if count > 1 and not plan.folder.sequence(t.key, count).exists()
    ]
    errors = run_jobs("sequence", jobs, plan.study)
    return [f"sequential unlearning, {name}: {error}" for name, error in errors.items()]
