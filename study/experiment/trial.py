"""One trial, by one process or by several together: unlearn, score, keep. Knows nothing of Ray."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from study.contracts import Request
from study.core.errors import Refused
from study.core.failures import Refusal
from study.core.files import write_json
from study.core.hashing import content_key
from study.core.layout import StudyFolder, record_beside
from study.core.records import TrialRecord, TrialState
from study.core.rows import read_rows, rows_at, write_rows
from study.core.terms import Goal
from study.data.benchmark import Question
from study.engine.isolation import isolated
from study.engine.microbatches import MicroBatching, retry_on_oom
from study.engine.world import world
from study.evaluation.scoring import score
from study.experiment.checkpoints import borrowed, repairable, unlearned_model
from study.experiment.context import StudyContext
from study.experiment.origin import origin_of
from study.experiment.records import existing_record, keep_record
from study.experiment.rungs import Climb, EndedEarly, Rungs, lacks_numbers, sample
from study.experiment.scored_sample import scored_sample
from study.experiment.trial_spec import Trial
from study.metrics import objectives
from study.metrics.objectives import forget_groups
from study.metrics.scored import Scored
from study.model.delta import delta, names_in
from study.model.flop_counter import ComputeCount, counted
from study.model.tensor_files import save_tensors
from study.model.vlm import VLM
from study.training.loop import Diverged, Watch, watched

EARLY = ("collapsed", "stopped")
"""How a trial that was watched may have ended at a rung."""


def run(
    context: StudyContext, trial: Trial, reference: str, *, waited: float = 0.0, rungs: Rungs | None = None
) -> TrialRecord:
    """Run a trial unless it is on disk, and return its record.

    A trial that diverges or that its method refuses ends as a record that says so; one that runs out of memory starts
    anew in smaller chunks. With `rungs` it is scored on the way and may end there; one that did
    and no longer may is run again, from the start and to the result that it would have had. `waited` is how many
    seconds the worker had been idle before; with loading, bookkeeping and attempts that ran out of memory it is the
    trial's overhead. Raises `DoesNotFit` if chunks of one row are too large.
    """
    done = world().broadcast_from_first(lambda: existing_record(context.folder, trial))
    if done is not None and not (done.state in EARLY and done.state not in (rungs.ends if rungs else ())):
        return done
    called = time.monotonic() - waited
    record = retry_on_oom(lambda chunks: _run(context, trial, reference, chunks, called, rungs), context.needed)
    world().barrier()  # whoever goes on reads what the first process wrote
    return record


def _run(
    context: StudyContext, trial: Trial, reference: str, chunks: MicroBatching, called: float, rungs: Rungs | None
) -> TrialRecord:
    torch.manual_seed(trial.seed)
    request = context.request(trial, reference, chunks)
    selects = _asked(context, trial, request)
    climb = Climb(context.folder, trial, rungs, sample(selects, trial.goal)) if rungs else None
    curve: list[float] = []
    # 1. Unlearn, on the borrowed start model, which is restored bit for bit when the block ends. Only what the method
    #    itself says, or a divergence, is a result of the trial: any other exception leaves it open.
    with borrowed(context.root, trial.start.key, context.device, chunks) as (vlm, before):
        started = time.monotonic()
        state: TrialState = "complete"
        reason = instruction = ""
        failure: Refusal = ""
        try:
            with counted(vlm) as unlearning, watched(_followed(curve, climb)), isolated():
                unlearned = trial.method(vlm, request)
            if not isinstance(unlearned, VLM):
                raise TypeError(f"the method returned {type(unlearned).__name__}, which is no model")
            world().broadcast_(list(unlearned.model.parameters()))
            instruction = unlearned.instruction
        except Diverged as error:
            state, reason = "diverged", str(error)
        except Refused as error:
            state, reason, failure = "failed", str(error), "refused"
        except EndedEarly as early:
            state, reason = early.ending.state, early.ending.reason
        unlearn_seconds = time.monotonic() - started - (climb.seconds if climb else 0.0)
        score_seconds, scoring = 0.0, ComputeCount()
        # 2. Keep what changed, then score the validation half.
        if state == "complete":
            kept = delta(unlearned, before)
            save_tensors(context.folder.delta(trial.key), kept)
            started = time.monotonic()
            with counted(unlearned) as scoring:
                rows = _scored(context, trial, unlearned, names_in(kept), selects, "select")
            write_rows(context.folder.rows(trial.key, "select"), rows)  # never those of a run that was killed
            if lacks_numbers(rows):
                state, reason = "diverged", "after the last step the probabilities of the answers are not numbers"
            score_seconds = time.monotonic() - started
    # 3. The loss of every step, then the record, written last: a trial that has one has ended.
    if curve:
        write_json(context.folder.trial_curve(trial.key), curve)
    cost = _cost(called, unlearn_seconds, score_seconds, climb, unlearning, scoring)
    return keep_record(
        context.folder, trial, state, reason, failure=failure, instruction=instruction, cost=cost,
        chunks=chunks.count, rungs=climb.scores if climb else (), origin=origin_of(context, trial.method),
    )  # fmt: skip


def _cost(
    called: float,
    unlearn_seconds: float,
    score_seconds: float,
    climb: Climb | None,
    unlearning: ComputeCount,
    scoring: ComputeCount,
) -> dict[str, float]:
    """Seconds and work of a trial by what they were spent on; `unlearning` includes what the rungs computed."""
    watching = together(climb.work if climb else ComputeCount())
    unlearning, scoring = together(unlearning).without(watching), together(scoring)
    spent = {"unlearn_seconds": unlearn_seconds, "score_seconds": score_seconds}
    spent |= {"rung_seconds": climb.seconds} if climb else {}
    return {
        **spent,
        "overhead_seconds": time.monotonic() - called - sum(spent.values()),
        **({"rung_flops": watching.flops} if climb else {}),
        **scoring.amounts(),
        **{f"unlearn_{name}": amount for name, amount in unlearning.amounts().items()},
    }  # fmt: skip


def _followed(curve: list[float], climb: Climb | None) -> Watch:
    """What is done after every step of a trial: its loss is noted, and at a rung the model is scored."""

    def follow(vlm: VLM, done: int, steps: int, loss: float) -> None:
        curve.append(loss)
        if climb:
            climb(vlm, done, steps)

    return follow


def _asked(context: StudyContext, trial: Trial, request: Request) -> list[Question]:
    """The questions of the validation half: a sample of them, except of baselines, with which any is compared."""
    every = validation_questions(request.split.questions, trial.goal)
    return every if trial.baseline else scored_sample(every, trial.goal, context.scored_error)


def together(own: ComputeCount) -> ComputeCount:
    """The work of all processes of a job, each of which counts its own."""
    return ComputeCount.of(world().all_gather_objects(own))


def validation_questions(questions: Sequence[Question], goal: Goal) -> list[Question]:
    """What a search asks: the choices of the validation half, and all tasks about what must go."""
    groups = forget_groups(goal)
    return [
        q for q in questions if q.half == "select" and (q.task == "classification" or (q.role, q.modality) in groups)
    ]


def report(context: StudyContext, trial: Trial, *, blind: bool = False) -> None:
    """Score the test half of the questions, which no search has seen, on every task; store the rows.

    With `blind`, also score every multiple-choice question about a picture with a grey one.
    """
    questions = context.benchmark.split(trial.ratio).questions
    wanted = {"report": [q for q in questions if q.half == "report"]}
    if blind:
        wanted["blind"] = [q for q in questions if q.modality == "image_text" and q.task == "classification"]
    if world().broadcast_from_first(lambda: all(context.folder.rows(trial.key, name).exists() for name in wanted)):
        return
    with borrowed(context.root, trial.start.key, context.device) as (vlm, _):
        found, changed = unlearned_model(context.folder, trial.key, vlm)
        rows = context.folder.rows(trial.key, "report")
        with counted(found) as work:
            kept_rows(rows, lambda: _scored(context, trial, found, changed, wanted["report"], "report"))
        if (done := together(work)).tokens:
            write_json(record_beside(rows), done.amounts())
        if blind:
            kept_rows(context.folder.rows(trial.key, "blind"), lambda: score(found, wanted["blind"], blind=True))
    world().barrier()


def kept_rows(path: Path, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The rows at `path`, measured and written first if they are missing or damaged.

    Processes that do a job together all measure, or none does.
    """
    rows = world().broadcast_from_first(lambda: rows_at(path))
    if rows is None:
        rows = measure()
        write_rows(path, rows)
    return rows


def judged(context: StudyContext, trial: Trial, baselines: Sequence[Trial]) -> dict[str, float]:
    """The objectives of a complete trial, from the validation half of its rows and of those of the baselines.

    These are vanilla, then the references.
    """
    return dict(_judged(context.folder, trial.key, tuple(t.key for t in baselines), trial.goal))


@functools.cache  # what ended stays, and every proposal is drawn from the results of all earlier ones
def _judged(folder: StudyFolder, trial: str, baselines: tuple[str, ...], goal: Goal) -> Mapping[str, float]:
    before, *wanted = (_baseline(folder, key) for key in baselines)
    return objectives.objectives(_selecting(folder, trial), before, wanted, goal)


@functools.lru_cache(maxsize=32)  # every trial of a ratio is compared with the same few
def _baseline(folder: StudyFolder, key: str) -> Scored:
    return Scored(_selecting(folder, key))


def _selecting(folder: StudyFolder, key: str) -> pd.DataFrame:
    """The validation half of a finished trial's rows."""
    with repairable(folder, key):
        return read_rows(folder.rows(key, "select"))


def _scored(
    context: StudyContext, trial: Trial, vlm: VLM, changed: Sequence[str], questions: Sequence[Question], name: str
) -> pd.DataFrame:
    """The rows of some questions; text rows of a model whose LLM is the start's are scored once per study.

    The validation half is chosen by likelihoods, so nothing is generated there.
    """
    reply = name != "select"
    if vlm.instruction or any(vlm.part_of(tensor) == "llm" for tensor in changed):
        return score(vlm, questions, reply=reply)
    # The LLM is bit for bit the start's and a text prompt touches nothing else: any trial's rows will do.
    asked = ("text", "known") if context.only_known else ("text",)
    if name == "select" and context.scored_error and not trial.baseline:
        asked = (*asked, f"error {context.scored_error:g}")
    cache = context.folder.cached_rows(content_key((trial.start, trial.goal, trial.ratio, *asked)), name)
    shared = kept_rows(cache, lambda: score(vlm, [q for q in questions if q.modality == "text"], reply=reply))
    shown = score(vlm, [q for q in questions if q.modality != "text"], reply=reply)
    return pd.concat([shown, shared], ignore_index=True)
