"""What is left of a study to do: jobs, operations, hours and memory by stage, as the plan shows them.

How long a job takes is what those that have ended took, else what the preset measured, else its operations at an
assumed rate: the line above the table says which.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from study.contracts import Method
from study.core import inventory
from study.core.errors import Damaged
from study.core.records import PlannedStage, PlanRecord, write_record
from study.experiment.scored_sample import scored_sample
from study.experiment.trial_spec import lessons_for
from study.model import memory_estimate
from study.model.families import patch_side
from study.model.loading import Loading, without_weights
from study.model.memory_estimate import GIB, Shape
from study.settings import Study
from study.stages.counts import Counts, budget_of
from study.stages.ended import Each, Ended, ended_in
from study.stages.manifest import is_unchanged
from study.stages.plan import Plan
from study.stages.workload import Shapes, attacked, official, scored, trained, unlearned

PETA = 1e15
EVERY = 60.0
"""Seconds between two looks at all records of a study, for a line of progress: long studies have thousands."""
STARTING = 60.0
"""Seconds, about, in which Ray starts and the report is written."""
ASSUMED = 150e12
"""Operations in a second of one GPU until a trial has been measured: 15 % of NVIDIA's figure for dense bfloat16 on H100
and H200 SXM, since nobody has timed this code at 7B."""


@dataclass(frozen=True)
class StageWork:
    """The jobs of one stage."""

    name: str
    jobs: int
    done: int
    each: Each
    gpus: float
    """Of each job."""
    more: int = 0
    """Jobs that come on top at most: of trials on a front that did not win."""

    @property
    def left(self) -> int:
        """Jobs that are still to be done."""
        return max(0, self.jobs - self.done)

    @property
    def flops(self) -> float | None:
        """Of what is left."""
        return self.left * self.each.flops if self.each.flops is not None else None

    @property
    def seconds(self) -> float | None:
        """Of what is left, one job after the other."""
        return self.left * self.each.seconds if self.each.seconds is not None else None

    @property
    def hours(self) -> float | None:
        """The same in hours, times the GPUs that each job takes."""
        return self.seconds * (self.gpus or 1) / 3600 if self.seconds is not None else None


def ended(plan: Plan) -> Ended:
    """What is on disk. Raises `Damaged` if a record is not one."""
    return ended_in(plan.folder, _taught(plan), plan.study.seed, finished=_finished(plan))


def note(plan: Plan) -> None:
    """Write down what every stage does, for whoever asks from outside how far the study is."""
    found, study = ended(plan), plan.study
    timed = {name for name, each in found.each.items() if each.seconds or name in _measured(study)}
    planned = [
        PlannedStage(stage.name, stage.jobs, stage.each.seconds, None if stage.name in timed else stage.each.flops)
        for stage in stages(plan, _operations(plan), found)
    ]
    taught = tuple(sorted(_taught(plan)))
    write_record(plan.folder.plan, PlanRecord(tuple(planned), taught, study.seed, study.workers))


def _taught(plan: Plan) -> set[str]:
    """The keys of the models that this plan has taught: none that are brought."""
    study = plan.study
    pool = plan.pool if study.metric_check else plan.baselines
    models = {t.start for ratio in study.forget_ratios for t in (*plan.baselines(ratio), *pool(ratio))}
    return {model.key for model in models if model not in plan.given}


def _finished(plan: Plan) -> bool:
    """Numbers of jobs say at most how many there can be: fewer are run where some repeat others, fail or drop out."""
    folder = plan.folder
    if not inventory.is_taken(folder) or folder.failure_records():
        return False
    return is_unchanged(plan)


def stages(plan: Plan, calculated: Mapping[str, float], found: Ended) -> list[StageWork]:
    """What every stage does, in their order; `calculated` are the operations of one job of each, before any ended."""
    study = plan.study
    rate = found.rate or (ASSUMED * study.gpus_per_trial or None)
    presets = _measured(study)
    each = {}
    for name, measured in found.each.items():
        flops = measured.flops if measured.flops is not None else calculated.get(name)
        timed = measured.seconds or presets.get(name)
        each[name] = Each(flops, flops / rate if timed is None and flops and rate else timed)
    counts = Counts(study, _room(study, each["search"]))
    jobs = {
        "learn": counts.taught, "search": counts.trials, "confirm": counts.again, "score": counts.reported,
        "attack": counts.attacks, "official": counts.attacked,
    }  # fmt: skip
    done = jobs if found.finished else found.done
    gpus = {"learn": study.teachers * min(1.0, study.gpus_per_trial)}
    more = {} if found.finished else {"score": counts.rest, "attack": counts.rest * len(study.attackers())}
    return [
        StageWork(name, jobs[name], done[name], one, gpus.get(name, study.gpus_per_trial), more.get(name, 0))
        for name, one in each.items()
        if name != "official" or study.released
    ]


def _measured(study: Study) -> Mapping[str, float]:
    """Seconds of one job of each stage that the preset measured."""
    if (cost := study.cost) is None:
        return {}
    return {
        "learn": cost.learn, "search": cost.trial, "confirm": cost.trial, "score": cost.report, "attack": cost.attack,
    }  # fmt: skip


def _room(study: Study, trial: Each) -> float:
    """How many trials of a method its budget has room for, with those that begin before it is known to be used up."""
    return budget_of(study).lasts(trial.flops, trial.seconds) + study.lookahead - 1


def calculated(plan: Plan, shapes: Shapes | None) -> dict[str, float]:
    """Operations of one job of each stage, the mean over methods and ratios; empty for unknown shapes."""
    if shapes is None:
        return {}
    from study.experiment.trial import validation_questions  # a plan does without what models need

    study, methods = plan.study, list((plan.defaults or plan.study.method_defaults()).values())
    searched, scoring, attacks, officially = [], [], [], []
    for ratio in study.forget_ratios:
        split = plan.benchmark.split(ratio)
        every = validation_questions(split.questions, study.goal)
        selects = scored_sample(every, study.goal, study.scored_error)
        select = scored(shapes, selects, replies=False)
        searched += [unlearned(shapes, method, study, split) + select for method in methods]
        scoring.append(scored(shapes, (q for q in split.questions if q.half == "report"), replies=True))
        asked = [q for q in split.questions if q.role in ("forget", "test") and q.task == "classification"]
        attacks.append(attacked(shapes, study, split, asked))
        officially.append(official(shapes, split.questions))
    taught = 0.0
    if plan.brought is None:
        vanilla = plan.vanilla
        taught = trained(shapes, vanilla.schedule, lessons_for(vanilla, plan.benchmark), vanilla.parts)
    means = [math.fsum(values) / len(values) for values in (searched, searched, scoring, attacks, officially)]
    return dict(zip(("learn", "search", "confirm", "score", "attack", "official"), (taught, *means), strict=True))


def shapes_of(plan: Plan) -> tuple[Shapes, Shape] | None:
    """The shapes of the base model, for its work and for its memory; None if it is yet to be made."""
    if plan.model.path is None:
        return None
    loading = Loading.of(plan.model)
    vlm = without_weights(plan.model.path, loading.as_taught)
    counted = memory_estimate.shape(vlm, loading.quantized)
    patches = vlm.across or (vlm.side // patch_side(vlm.model.config)) ** 2
    return Shapes(counted.parameters, vlm.image_tokens, patches), counted


def memory(plan: Plan, counted: Shape) -> float:
    """The GiB of the job that takes most, with the pictures of a step at once."""
    taught = plan.vanilla.schedule
    learned = memory_estimate.LEARN if taught.lora_rank else memory_estimate.WHOLE["nothing"]
    schedules = [] if plan.brought else [(learned, taught)]
    for method in plan.defaults.values():
        if method.schedule is not None:
            schedules.append((kind_of(method), method.schedule))
    needs = [
        found.peak()
        for kind, schedule in dict.fromkeys(schedules)
        for found in memory_estimate.estimates(counted, schedule.pictures, schedule.lessons_per_picture)
        if found.kind == kind
    ]
    return max(needs, default=counted.weights) / GIB


def kind_of(method: Method) -> str:
    """What the memory estimate calls the training of a method."""
    if method.trains_adapters:
        return memory_estimate.ADAPTERS
    kinds = memory_estimate.WHOLE if "llm" in method.trains else memory_estimate.VISUAL
    return kinds.get(method.holds, kinds["nothing"])


def ahead(plan: Plan, name: str, at_once: int) -> Callable[[], float | None]:
    """Asks what the stages after this one will take, in seconds, by the jobs that have ended; None if too few have.

    So many jobs run at once.
    """
    looked, told = -math.inf, None

    def seconds() -> float | None:
        nonlocal looked, told
        if time.monotonic() - looked >= EVERY:
            try:
                told = _after(plan, name)
            except Damaged:  # whatever needs the record will say so: progress is shown while other jobs run
                told = None
            looked = time.monotonic()
        return None if told is None else told / at_once

    return seconds


def _after(plan: Plan, name: str) -> float | None:
    """The seconds of the stages after this one, if something has ended that says how fast this machine is."""
    found = ended(plan)
    if found.rate is None:
        return None
    work = stages(plan, _operations(plan), found)
    first = next(number for number, stage in enumerate(work) if stage.name == name)
    return _sum([stage.seconds for stage in work[first + 1 :]])


def _operations(plan: Plan, found: tuple[Shapes, Shape] | None = None) -> Mapping[str, float]:
    """What is calculated of a plan, once: the shapes take seconds to find, and the plan has printed them before."""
    if not plan.operations:
        found = found or shapes_of(plan)
        plan.operations.update(calculated(plan, found[0] if found else None))
    return plan.operations


def lines(plan: Plan) -> Iterator[str]:
    """What is left by stage and in all, as lines of a small table, and how long it takes where a preset measured it."""
    found, study, before = shapes_of(plan), plan.study, ended(plan)
    work = stages(plan, _operations(plan, found), before)
    unit = "GPU-hours" if study.gpus_per_trial else "hours of one job at a time"
    yield f"what is left, {_source(study, before)}"
    yield f"{'':8}{'jobs':>7}{'PFLOP':>11}  {unit}"
    for stage in work:
        yield f"{stage.name:8}{stage.left:7,}{_shown(_peta(stage.flops)):>11}  {_shown(stage.hours)}"
    flops, hours = (_sum([getattr(stage, name) for stage in work]) for name in ("flops", "hours"))
    yield f"{'all':8}{sum(stage.left for stage in work):7,}{_shown(_peta(flops)):>11}  {_shown(hours)}" + (
        f", {study.price_per_gpu_hour * hours:,.0f} at {study.price_per_gpu_hour:g} an hour"
        if study.price_per_gpu_hour and study.gpus_per_trial and hours is not None
        else ""
    )
    yield from _minutes(plan, work)
    if found:
        yield f"a job takes up to {memory(plan, found[1]):,.1f} GiB of memory (calculated)"


def _minutes(plan: Plan, work: Sequence[StageWork]) -> Iterator[str]:
    """How long the jobs that are left take side by side."""
    cost, workers = plan.study.cost, plan.study.workers
    if cost is None or not any(stage.left for stage in work):
        return
    start = STARTING + (0.0 if plan.folder.base_model.exists() else cost.base)
    least = math.fsum(stage.seconds or 0.0 for stage in work)
    most = least + math.fsum(stage.more * (stage.each.seconds or 0.0) for stage in work)
    minutes = dict.fromkeys(f"{(start + seconds / workers) / 60:.0f}" for seconds in (least, most))
    unknown = [stage.name for stage in work if stage.left and stage.each.seconds is None]
    without = f", not counting {' and '.join(unknown)}" if unknown else ""
    yield f"about {' to '.join(minutes)} minutes with {workers} jobs at once{without}"


def _source(study: Study, found: Ended) -> str:
    """By what hours are told."""
    if Each.mean(found.searched).rate:
        return "by the trials that have ended"
    if study.cost:
        return "as measured for this preset"
    if study.gpus_per_trial:
        return f"at an assumed {ASSUMED / 1e12:g} TFLOP/s of a GPU until the first trials have ended"
    return "in hours once the first trials have ended"


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


def _peta(flops: float | None) -> float | None:
    return None if flops is None else flops / PETA


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
