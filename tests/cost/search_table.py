"""A table of finished trials, from which searches are replayed.

    python -m tests.cost.search_table --study-dir runs/tiny

For each method, points of a Sobol sequence and random ones, each with three seeds, are run on the models that a
finished default study has learned: watched at the rungs, never ended there, scored on both halves. What is on disk is
not run again.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
import tyro

from study.contracts import Method
from study.core.files import read_json
from study.core.hashing import content_key
from study.core.layout import StudyFolder
from study.core.records import TrialRecord, read_record
from study.core.rows import read_rows, write_rows
from study.core.specs import parameters
from study.core.terms import Half
from study.data.benchmark import Question
from study.engine.quasi_random import QuasiRandomSampler
from study.evaluation.scoring import score
from study.experiment import trial
from study.experiment.checkpoints import borrowed, unlearned_model
from study.experiment.context import StudyContext
from study.experiment.method_search import MethodSearch
from study.experiment.rungs import Rungs
from study.experiment.trial_spec import RATIO, Trial
from study.metrics.objectives import objectives
from study.model.loading import Loading
from study.presets import PRESETS
from study.settings import Study
from study.stages.plan import Plan
from study.stages.preflight import validate_study
from study.stages.search import search_of

METHODS = ("gradient_ascent", "gradient_difference", "npo", "vkd:variant=features")
"""Three spaces of two to four numbers, and one with choices and conditions."""
TABLE = Path(__file__).with_name("search_table.csv")
"""Of an earlier base model, which knew only the words of the synthetic dataset."""
SEEDS = 3
VKD_STEPS = 100
"""Of VKD's default, a third of the preset's: most of the table's time is VKD's."""

Kind = Literal["default", "sobol", "random"]


@dataclass(frozen=True)
class Draw:
    """One line of the table before it is run: where its parameters come from."""

    method: str
    kind: Kind
    number: int


@dataclass(frozen=True)
class Options:
    """What is run."""

    study_dir: Path
    """A finished default study: its learned models are used, its trials are not."""
    ratio: int = 20
    draws: int = 16
    """Of each kind for each method."""
    workers: int = 2
    seeds: int = SEEDS
    table: Path = TABLE
    methods: tuple[str, ...] = METHODS
    world: int = 0
    """Seed of the base model, of the benchmark and of the study. Random points are the same in every world; those of
    the Sobol sequence are while the methods keep their hyper-parameters."""
    references: int = 3
    """Of the study."""


def main(options: Options) -> None:
    """Run what is missing, then write the table."""
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    plan = _plan(options)
    context = StudyContext(plan.root, plan.source, _base(plan), "cpu", (), Loading.of(plan.model))
    search = search_of(plan, context)
    draws = list(_draws(options))
    jobs = [replace(job_of(search, options.ratio, draw), seed=seed) for seed in range(options.seeds) for draw in draws]
    jobs = [job for job in dict.fromkeys(jobs) if not _ended(context, job)]
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn"), _quiet) as pool:
        for done, _ in enumerate(pool.map(_run, [search] * len(jobs), jobs), 1):
            print(f"{done} of {len(jobs)}", flush=True)
    lines = [
        line_of(search, draw, replace(job_of(search, options.ratio, draw), seed=seed))
        for draw in draws
        for seed in range(options.seeds)
    ]
    with options.table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _plan(options: Options) -> Plan:
    seed = options.world
    other = {"model": f"tiny:seed={seed}", "benchmark": f"synthetic:seed={seed}", "seed": seed}
    world: dict[str, Any] = other if seed else {}
    study = replace(
        PRESETS["tiny"][1],
        study_dir=options.study_dir,
        forget_ratios=(options.ratio,),
        reference_seeds=options.references,
        **world,
    )
    plan = validate_study(study, StudyFolder(options.study_dir.absolute()).data)
    shorter = replace(_shorter(study), methods=options.methods)
    return replace(plan, study=shorter, defaults=shorter.method_defaults())


def _shorter(study: Study) -> Study:
    """The default study with the methods of the table, of which VKD is shorter."""
    vkd = METHODS[-1]
    shorter = replace(study.defaults[vkd]["schedule"], steps=VKD_STEPS)
    return replace(
        study, defaults={**study.defaults, vkd: {**study.defaults[vkd], "schedule": shorter}}, methods=METHODS
    )


def defaults() -> dict[str, Method]:
    """Where the search of each method of the table starts."""
    return _shorter(PRESETS["tiny"][1]).method_defaults()


def _base(plan: Plan) -> Path:
    return plan.root / str(read_json(plan.folder.base_model)["path"])


def _draws(options: Options) -> Iterator[Draw]:
    for method in options.methods:
        yield Draw(method, "default", 0)
    for number in range(options.draws):
        for kind in ("sobol", "random"):
            for method in options.methods:
                yield Draw(method, kind, number)


def job_of(search: MethodSearch, ratio: int, draw: Draw) -> Trial:
    """The trial of a line."""
    fixed = {RATIO: ratio}
    if draw.kind == "default":
        start = search.initial_params(draw.method, 0)
        assert start is not None
        return search.job(draw.method, {**start, **fixed})
    seed = int(content_key(["search table", draw.method, draw.kind]), 16) % 2**32
    if draw.kind == "sobol":
        sampler: optuna.samplers.BaseSampler = QuasiRandomSampler(draw.number, seed, _names(search, draw.method))
    else:
        sampler = optuna.samplers.RandomSampler(seed=seed + draw.number)
    asked = optuna.create_study(sampler=optuna.samplers.PartialFixedSampler(fixed, sampler)).ask()
    return search.build_job(draw.method, asked)


def _names(search: MethodSearch, method: str) -> list[str]:
    start = search.initial_params(method, 0)
    assert start is not None
    return sorted(start)


def _quiet() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _ended(context: StudyContext, job: Trial) -> bool:
    path = context.folder.record(job.key)
    if not path.exists():
        return False
    record = read_record(TrialRecord, path)
    return "rung_flops" in record.cost and (record.state != "complete" or _test_rows(context, job.key).exists())


def _test_rows(context: StudyContext, key: str) -> Path:
    """The rows of the test half, without replies: not those of the study, which have them."""
    return context.folder.rows(key, "table")


def _run(search: MethodSearch, job: Trial) -> None:
    """Run a trial watched, score its test half, and drop its weights."""
    context, baselines = search.context, search.baselines[job.ratio]
    # What the study itself ran was not watched everywhere, and a run of this that was killed may have lost the weights.
    context.folder.record(job.key).unlink(missing_ok=True)
    record = trial.run(context, job, baselines[1].start.key, rungs=Rungs(baselines, lambda score: None))
    if record.state == "complete":
        with borrowed(context.root, job.start.key, context.device) as (vlm, _):
            unlearned, _ = unlearned_model(context.folder, job.key, vlm)
            write_rows(_test_rows(context, job.key), score(unlearned, _test_questions(context, job), reply=False))
    context.folder.delta(job.key).unlink(missing_ok=True)


def _test_questions(context: StudyContext, job: Trial) -> list[Question]:
    """What a search would ask of the test half."""
    asked = context.benchmark.split(job.ratio).questions
    swapped: dict[Half, Half] = {"select": "report", "report": "select"}
    of_test = trial.validation_questions([replace(q, half=swapped[q.half]) for q in asked], job.goal)
    return [replace(q, half="report") for q in of_test]


def line_of(search: MethodSearch, draw: Draw, job: Trial) -> dict[str, Any]:
    """What a finished trial says."""
    context, baselines = search.context, search.baselines[job.ratio]
    record = read_record(TrialRecord, context.folder.record(job.key))
    found: dict[str, Any] = {
        "method": draw.method, "kind": draw.kind, "number": draw.number, "seed": job.seed, "key": job.key,
        "state": record.state, "params": json.dumps(params_of(search, draw, job.ratio), sort_keys=True),
        "unlearn_flops": record.cost["unlearn_flops"], "score_flops": record.cost["flops"],
        "rung_flops": record.cost.get("rung_flops", 0.0),
    }  # fmt: skip
    for rung in (1, 2):
        scores = next((one for one in record.rungs if one.rung == rung), None)
        for name in ("forget_gap", "utility"):
            found[f"rung_{rung}_{name}"] = getattr(scores, name) if scores else ""
    for half, name in (("validation", "select"), ("test", "report")):
        values: dict[str, Any] = {}
        if record.state == "complete":
            own = read_rows(context.folder.rows(job.key, "table" if name == "report" else name))
            before, *wanted = (read_rows(context.folder.rows(t.key, name)) for t in baselines)
            before, *wanted = (rows[rows["question"].isin(own["question"])] for rows in (before, *wanted))
            values = objectives(own, before, wanted, job.goal)
        found |= {f"{half}_{one}": values.get(one, "") for one in ("forget_gap", "utility")}
    return found


def params_of(search: MethodSearch, draw: Draw, ratio: int) -> dict[str, Any]:
    """The parameters of a line, as a proposal has them."""
    job = job_of(search, ratio, draw)
    asked = optuna.trial.FixedTrial({RATIO: ratio, **parameters(job.method)})
    search.build_job(draw.method, asked)
    return {name: value for name, value in asked.params.items() if name != RATIO}


if __name__ == "__main__":
    main(tyro.cli(Options))
