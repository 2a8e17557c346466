"""What is left of a study to do: jobs, operations, hours and memory by stage, as the plan shows them.

How long a job takes is what those that have ended took, else what the preset measured, else its operations at an
assumed rate: the line above the table says which.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from study.contracts import Method
from study.core import inventory
from study.core.errors import Damaged
from study.core.records import WORK, AttackRecord, LearnedRecord, MethodProposal, TrialRecord, existing
from study.experiment.scored_sample import scored_sample
from study.experiment.trial_spec import lessons_for
from study.model import memory_estimate
from study.model.families import patch_side
from study.model.loading import Loading, without_weights
from study.model.memory_estimate import GIB, Shape
from study.settings import Study
from study.stages.counts import Counts
from study.stages.manifest import is_unchanged
from study.stages.plan import Plan
from study.stages.workload import Shapes, attacked, official, scored, trained, unlearned

PETA = 1e15
EVERY = 60.0
"""Seconds between two looks at all records of a study, for a line of progress: long studies have thousands."""
ASSUMED = 150e12
"""Operations in a second of one GPU until a trial has been measured: 15 % of NVIDIA's figure for dense bfloat16 on H100
and H200 SXM, since nobody has timed this code at 7B."""


@dataclass(frozen=True)
class Each:
    """What one job of a stage takes, as far as it is known."""

    flops: float | None = None
    seconds: float | None = None

    @classmethod
    def mean(cls, jobs: Sequence[tuple[float, float]]) -> Each:
        """Of jobs that have ended; operations of 0 were not counted."""
        if not jobs:
            return cls()
        flops, seconds = (math.fsum(amounts) / len(jobs) for amounts in zip(*jobs, strict=True))
        return cls(flops or None, seconds or None)

    @property
    def rate(self) -> float | None:
        """Operations in a second."""
        return self.flops / self.seconds if self.flops and self.seconds else None


@dataclass(frozen=True)
class StageWork:
    """The jobs of one stage."""

    name: str
    jobs: int
    done: int
    each: Each
    gpus: float
    """Of each job."""

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


@dataclass(frozen=True)
class Ended:
    """The work of jobs that have ended, (operations, seconds) each, as their records say, and how many have."""

    learned: Sequence[tuple[float, float]]
    searched: Sequence[tuple[float, float]]
    again: Sequence[tuple[float, float]]
    attacked: Sequence[tuple[float, float]]
    done: Sequence[int]
    """The jobs of each stage that need not be done any more, whatever came of them."""
    finished: bool
    """Whether a run has ended with these settings and left nothing to be tried again."""

    @property
    def rate(self) -> float | None:
        """Operations in a second of trials and attacks together."""
        return Each.mean([*self.searched, *self.again, *self.attacked]).rate


def ended(plan: Plan) -> Ended:
    """What is on disk. Raises `Damaged` if a record is not one."""
    folder = plan.folder
    learned = [record for key in _taught(plan) if (record := existing(LearnedRecord, folder.learned_record(key)))]
    trials = {t.key: t for path in folder.trial_records() if (t := existing(TrialRecord, path))}
    methods = [t for t in trials.values() if t.kind == "method"]
    again = [t for t in methods if t.seed != plan.study.seed]
    attacks = [a for key in trials for path in folder.attacks(key) if (a := existing(AttackRecord, path))]
    proposed = [p for path in folder.proposals() if (p := existing(MethodProposal, path))]
    judged = Counter(path.stem for path in folder.meta_evaluations())
    done = (
        len(learned),
        sum(p.trial in trials for p in proposed),
        len(again) + sum(len(folder.sequences(t.key)) for t in methods),
        sum(folder.rows(key, "report").exists() for key in trials) + judged["plain"],
        len(attacks) + judged["quantized"],  # the plan counts one attack for each of these models
        sum(folder.rows(key, "released").exists() for key in trials),
    )
    return Ended(
        learned=[(0.0, record.seconds) for record in learned],
        searched=[_spent(t) for t in methods if t.seed == plan.study.seed and t.cost],
        again=[_spent(t) for t in again if t.cost],  # one that did not fit into the device says nothing of others
        attacked=[((a.flops or 0.0) + (a.score_flops or 0.0), a.seconds) for a in attacks if a.seconds is not None],
        done=done,
        finished=_finished(plan),
    )


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


def _spent(trial: TrialRecord) -> tuple[float, float]:
    seconds = (f"{name}_seconds" for name in ("unlearn", "rung", "score", "overhead"))
    found = [math.fsum(trial.cost.get(name, 0.0) for name in names) for names in (WORK, seconds)]
    return found[0], found[1]


def stages(plan: Plan, calculated: Mapping[str, float], found: Ended) -> list[StageWork]:
    """What every stage does, in their order; `calculated` are the operations of one job of each, before any ended."""
    study, counts = plan.study, Counts(plan.study, plan.brought is not None)
    rate = found.rate or (ASSUMED * study.gpus_per_trial or None)
    cost = study.cost
    known = {
        "learn": (Each.mean(found.learned), cost.learn if cost else None),
        "search": (Each.mean([*found.searched, *found.again]), cost.trial if cost else None),
        "confirm": (Each.mean([*found.again, *found.searched]), cost.trial if cost else None),
        "score": (Each(), cost.report if cost else None),
        "attack": (Each.mean(found.attacked), cost.attack if cost else None),
        "official": (Each(), None),
    }
    asked_officially = counts.attacked if study.released else 0
    jobs = (counts.taught, counts.trials, counts.again, counts.reported, counts.attacks, asked_officially)
    done = jobs if found.finished else found.done
    work = []
    for (name, (measured, preset)), asked, over in zip(known.items(), jobs, done, strict=True):
        flops = measured.flops if measured.flops is not None else calculated.get(name)
        seconds = measured.seconds or preset or (flops / rate if flops and rate else None)
        gpus = study.teachers * min(1.0, study.gpus_per_trial) if name == "learn" else study.gpus_per_trial
        if name != "official" or study.released:
            work.append(StageWork(name, asked, over, Each(flops, seconds), gpus))
    return work


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
    patches = (vlm.side // patch_side(vlm.model.config)) ** 2
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
    """The budget as lines of a small table: what is left by stage, and in all."""
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
    if found:
        yield f"a job takes up to {memory(plan, found[1]):,.1f} GiB of memory (calculated)"


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
