"""The meta-evaluation: models that know and models that do not, scored as they are, quantized, and relearned.

`study.metrics.meta_evaluation` computes from their answers how good each metric is. Of the pool, only vanilla and the
references are used elsewhere. They must pass the gate before anything else is done; models of further seeds that do not
pass are left out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import torch

from study.attacks.quantization import Quantization
from study.attacks.relearning import UNRELATED, Relearning
from study.contracts import Attack, Request
from study.core.errors import Failed, Refused
from study.core.hashing import canonical, content_key
from study.core.layout import StudyFolder, record_beside
from study.core.plugins import name_of
from study.core.records import MetaEvaluationRecord, read_record, write_record
from study.core.rows import write_rows
from study.core.terms import PARTS, Part
from study.data.benchmark import Question
from study.engine.isolation import isolated
from study.engine.jobs import Job
from study.engine.microbatches import MicroBatching, retry_on_oom
from study.evaluation.scoring import score
from study.experiment.attack import marked
from study.experiment.checkpoints import borrowed
from study.experiment.context import StudyContext
from study.experiment.trial_spec import Learned, Trial
from study.metrics.meta_evaluation import State
from study.metrics.objectives import forget_groups
from study.settings import Study
from study.stages import gate
from study.stages.launch import run_jobs
from study.stages.learn import teach
from study.stages.plan import Plan
from study.training.loop import Diverged

States = Mapping[State, Attack | None]
"""The attack on a model before it is scored, by state; None for the model as it is."""


def meta_evaluate(plan: Plan, context: StudyContext) -> list[str]:
    """Teach and score the models of the pool that are missing, if the study asks for it; returns what failed."""
    study = plan.study
    if not study.metric_check:
        return []
    pool = [t for ratio in study.forget_ratios for t in plan.pool(ratio)]
    failures: list[str] = []
    try:
        teach(plan, context, [t.start for t in pool])
    except Failed as error:
        failures.append(f"meta-evaluation: {error}")
    wanted = states(study, frozen_llm=bool(context.loading.quantized))
    todo = {t: _missing(plan.folder, t, wanted) for t in pool if _is_learned(plan.folder, t.start)}
    jobs = [
        Job(f"{t.start.kind} on {t.ratio} % seed {t.seed}", ask, (context, t, plan.reference(t.ratio).key, missing))
        for t, missing in todo.items()
        if missing
    ]
    errors = run_jobs("metrics", jobs, study)
    for member in pool:
        if member.seed != study.seed:  # the gate has judged the baselines of the study itself
            _judge(plan, member)
    return failures + [f"meta-evaluation of {name}: {error}" for name, error in errors.items()]


def states(study: Study, *, frozen_llm: bool = False) -> dict[State, Attack | None]:
    """What is done to each model: nothing, the suite's first quantization (else int4), and its relearning, if any.

    The first relearning that leaves whole people out, else the first: of a person of whom it is given something, a
    model may put the rest together. Where the LLM is frozen, int4 is of the visual module.
    """
    suite = study.attackers()
    visual: tuple[Part, ...] = ("vision", "projector")
    rounded = Quantization("int4", visual if frozen_llm else PARTS)
    rounding = next((a for a in suite if isinstance(a, Quantization)), rounded)
    teaching = [a for a in suite if isinstance(a, Relearning)]
    teaching.sort(key=lambda a: a.data not in UNRELATED and a.people == 1.0)
    found: dict[State, Attack | None] = {"plain": None, "quantized": rounding}
    if teaching:
        found["relearned"] = replace(teaching[0], score_at=(teaching[0].schedule.steps,))
    return found


def ask(context: StudyContext, member: Trial, reference: str, wanted: States) -> None:
    """Ask one model of the pool everything about the forget people, in each of the states; keep the rows.

    An attack that breaks the model or cannot be done is noted and not tried again.
    """
    request = context.request(replace(member, seed=0), reference)  # one attacker for all models, whatever their seed
    questions = asked(request)
    for state, attacker in wanted.items():
        path = context.folder.meta_evaluation(member.key, state)
        started, failed = time.monotonic(), ""
        attempt = partial(_rows, context, member, questions, attacker, request)
        try:
            write_rows(path, retry_on_oom(attempt, context.needed))
        except (Diverged, Refused) as error:
            failed = str(error)
            path.unlink(missing_ok=True)
        record = MetaEvaluationRecord(
            state=state,
            ratio=member.ratio,
            seed=member.seed,
            knows=member.start.kind == "vanilla",
            attack=name_of(attacker) if attacker else "",
            settings=canonical(attacker),
            failed=failed,
            seconds=time.monotonic() - started,
        )
        write_record(record_beside(path), record)  # written last: what has one is done


def _judge(plan: Plan, member: Trial) -> None:
    """Note beside the rows of a model where it does not pass the gate; whoever reads the pool then leaves it out."""
    rows = plan.folder.meta_evaluation(member.key, "plain")
    if not rows.exists():
        return
    place = record_beside(rows)
    record, short = read_record(MetaEvaluationRecord, place), "; ".join(gate.further(plan, member))
    if record.short != short:
        write_record(place, replace(record, short=short))


def asked(request: Request) -> list[Question]:
    """Every question whose answer is to be forgotten: all tasks, both halves, in the modalities of the goal."""
    questions = request.split.questions
    groups = forget_groups(request.goal, {(q.role, q.modality) for q in questions})
    return [q for q in questions if (q.role, q.modality) in groups]


def _rows(
    context: StudyContext,
    member: Trial,
    questions: Sequence[Question],
    attacker: Attack | None,
    request: Request,
    chunks: MicroBatching,
) -> pd.DataFrame:
    """The rows of the model as it is or, with an attacker, after its last step."""
    with borrowed(context.root, member.start.key, context.device, chunks) as (vlm, _):
        if attacker is None:
            return score(vlm, questions)
        torch.manual_seed(request.seed)
        with isolated():
            stages = [score(s.vlm, questions).assign(step=s.step) for s in attacker(vlm, questions, request)]
    return marked(stages[-1], questions, attacker, request)


def _missing(folder: StudyFolder, member: Trial, wanted: States) -> dict[State, Attack | None]:
    """The states that have not been asked, or that came about by another attack."""
    notes = {state: record_beside(folder.meta_evaluation(member.key, state)) for state in wanted}
    return {
        state: attacker
        for state, attacker in wanted.items()
        if not notes[state].exists() or not _same(read_record(MetaEvaluationRecord, notes[state]).settings, attacker)
    }


def _same(settings: object, attacker: Attack | None) -> bool:
    return content_key(settings) == content_key(canonical(attacker))


def _is_learned(folder: StudyFolder, model: Learned) -> bool:
    return folder.learned_record(model.key).exists()
