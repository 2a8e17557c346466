"""Learn, search, confirm, attack, report: each stage is skipped where its results are on disk."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from study import cluster, gate, trial
from study.attack_stage import attack_winners, first_seeds, search_attacks
from study.cluster import Job
from study.console import Stage, console, table
from study.contracts import BaseModel, Learned, Trial
from study.objectives import winner
from study.plan import Failed, Plan, Refused, label, prepared, settle, show
from study.presets import Study
from study.running import run_jobs, run_search
from study.sequence import in_sequence
from study.store import Folder, Json, read_json, write_json
from study.trial import Bench

if TYPE_CHECKING:  # Ray reads its settings when it is imported, so tuning and workers are imported once it is set up
    from study.tuning import Search


def run(study: Study) -> int:
    """Run a study to its report; returns the exit status. Raises `Refused` or `ValueError` before any
    training, and `Failed` if the study cannot go on."""
    if study.dry_run:
        with tempfile.TemporaryDirectory() as data:
            show(prepared(study, Path(data)))
        return 0
    plan = prepared(study, Folder(study.study_dir.absolute()).data)
    show(plan)
    plan.root.mkdir(parents=True, exist_ok=True)
    with _locked(plan.root):
        settle(plan)
        with cluster.started(study.address, study.workers, study.threads):
            failures = _stages(plan)
    _finish(plan, failures)
    return 1 if failures else 0


def _stages(plan: Plan) -> list[str]:
    """All stages; returns what failed on the way."""
    _check_resources(plan)
    bench = _learn(plan)
    gate.check(plan)
    search = _search_of(plan, bench)
    failures = _search(plan, search)
    winners = _winners(plan, search)
    failures += _confirm(plan, bench, winners)
    failures += _sequence(plan, bench, winners)
    failures += attack_winners(plan, bench, winners)
    failures += search_attacks(plan, bench, winners)
    return failures


def _learn(plan: Plan) -> Bench:
    """The base model, then vanilla and the references side by side, then their scores."""
    from study.workers import learn_all  # Ray Train takes seconds to import; a dry run does without

    study = plan.study
    device = "cuda" if study.gpus_per_trial else "cpu"
    bench = Bench(plan.root, plan.source, plan.root, device, study.forget_attributes)
    bench = replace(bench, base=_base(plan))
    models = [plan.vanilla, *(plan.reference(ratio) for ratio in study.forget_ratios)]
    names = {m: "vanilla" if m.ratio is None else f"reference {m.ratio} %" for m in models}
    missing = [m for m in models if not (plan.folder.learned(m.key) / "learned.json").exists()]
    if missing:
        with Stage(
            "learn", study.learn.steps * len(missing), "steps, " + ", ".join(names[m] for m in missing)
        ) as stage:
            progress: dict[Learned, int] = dict.fromkeys(missing, 0)

            def tell(model: Learned, steps: int) -> None:
                if steps > progress[model]:
                    gained, progress[model] = steps - progress[model], steps
                    stage.advance(f"{names[model]} at step {steps}", gained, every=10)

            gpus = study.gpus_per_trial
            workers = min(len(missing), _gpu_jobs(study)) if gpus else len(missing)
            cpus = 1.0 if gpus else min(1.0, study.workers / workers)
            learn_all(bench, missing, workers=workers, cpus=cpus, gpus=gpus, on_progress=tell)
    jobs = [
        Job(f"{names[t.start]} on {t.ratio} %", _yardstick, (bench, t, plan.reference(t.ratio).key))
        for ratio in study.forget_ratios
        for t in plan.yardsticks(ratio)
        if not plan.folder.rows(t.key, "blind").exists()
    ]
    _raise_first(run_jobs("score", jobs, study))
    return bench


def _base(plan: Plan) -> Path:
    """The base model's folder, made first if it is one that is made."""
    if hasattr(plan.model, "path"):
        return plan.model(plan.folder.data).absolute()
    note = plan.folder.data / "base.json"
    if not note.exists():
        with Stage("base", 1, "model") as stage:
            jobs = [Job(plan.study.model, _make_base, (plan.model, plan.folder, note))]
            _raise_first(cluster.run_all(jobs, lambda job, error: stage.advance(error or "ready"), gpus=0))
    return plan.root / str(read_json(note)["path"])


def _search_of(plan: Plan, bench: Bench) -> Search:
    from study.tuning import Search

    study = plan.study
    pairs = {ratio: plan.yardsticks(ratio) for ratio in study.forget_ratios}
    return Search(
        bench=bench,
        defaults=study.method_defaults(),
        trials=study.trials,
        ratios=study.forget_ratios,
        vanilla=plan.vanilla,
        references={ratio: plan.reference(ratio).key for ratio in study.forget_ratios},
        yardsticks={ratio: (vanilla.key, reference.key) for ratio, (vanilla, reference) in pairs.items()},
        goal=study.goal,
        seed=study.seed,
        lookahead=study.lookahead,
        random_trials=study.random_trials,
    )


def _search(plan: Plan, search: Search) -> list[str]:
    """Run what is missing of the search; returns the methods of which no trial ended well."""
    run_search("search", plan, search)
    good = {(method, t.ratio) for method in search.defaults for t in search.outcomes(method)}
    wanted = [(method, ratio) for method in search.defaults for ratio in search.ratios]
    return [f"{method}: every trial at {ratio} % failed" for method, ratio in wanted if (method, ratio) not in good]


def _winners(plan: Plan, search: Search) -> list[Trial]:
    """The winner of each method at each ratio with its further seeds, chosen from the rows and written down."""
    study = plan.study
    chosen: list[Trial] = []
    keys: dict[str, dict[str, Json]] = {}
    for method in search.defaults:
        judged = search.outcomes(method)
        keys[method] = {}
        for ratio in study.forget_ratios:
            there = {t.key: (t, outcome.values) for t, outcome in judged.items() if t.ratio == ratio}
            if there:
                best, _ = there[winner([(key, values) for key, (_, values) in there.items()])]
                seeds = [replace(best, seed=study.seed + i) for i in range(study.confirm_seeds + 1)]
                chosen += seeds
                keys[method][str(ratio)] = {"trials": [t.key for t in seeds]}
    write_json(plan.folder.winners, keys)
    return chosen


def _confirm(plan: Plan, bench: Bench, winners: Sequence[Trial]) -> list[str]:
    """Re-run winners on further seeds and score all of them on the questions that chose nobody."""
    jobs = [
        Job(f"{label(t)} seed {t.seed}", _confirmed, (bench, t, plan.reference(t.ratio).key))
        for t in winners
        if not plan.folder.rows(t.key, "report").exists() and not _ended_badly(plan.folder, t)
    ]
    errors = run_jobs("confirm", jobs, plan.study)
    return [f"confirming {name}: {error}" for name, error in errors.items()]


def _sequence(plan: Plan, bench: Bench, winners: Sequence[Trial]) -> list[str]:
    """Give each winner its forget set in several requests, one after another."""
    count = plan.study.requests
    jobs = [
        Job(f"{label(t)} in {count} requests", in_sequence, (bench, t, count, plan.reference(t.ratio).key))
        for t in first_seeds(plan, winners)
        if count > 1 and not plan.folder.sequence(t.key, count).exists()
    ]
    errors = run_jobs("sequence", jobs, plan.study)
    return [f"sequence {name}: {error}" for name, error in errors.items()]


# ---- jobs: module-level functions, so that workers can import them ------------------------------------------------
def _make_base(model: BaseModel, folder: Folder, note: Path) -> None:
    """Make the base model inside the study and note where it is."""
    cluster.quiet_worker()
    path = model(folder.data).absolute()
    write_json(note, {"path": str(path.relative_to(folder.root))})


def _yardstick(bench: Bench, yardstick: Trial, reference: str) -> None:
    trial.run(bench, yardstick, reference)
    trial.report(bench, yardstick, blind=True)


def _confirmed(bench: Bench, confirmed: Trial, reference: str) -> None:
    if trial.run(bench, confirmed, reference)["state"] == "complete":
        trial.report(bench, confirmed)


def _raise_first(errors: Mapping[str, str]) -> None:
    for name, error in errors.items():
        raise Failed(f"{name} failed: {error}")


def _ended_badly(folder: Folder, t: Trial) -> bool:
    path = folder.record(t.key)
    return path.exists() and read_json(path)["state"] != "complete"


def _gpu_jobs(study: Study) -> int:
    """How many jobs with GPUs may be asked for together: a cluster may grow to the number asked, a machine not."""
    if not cluster.is_private(study.address):
        return study.workers
    return max(1, min(study.workers, int(cluster.gpus() / study.gpus_per_trial)))


def _check_resources(plan: Plan) -> None:
    """A job that nothing can run would wait for ever; a cluster may still grow, this machine does not."""
    wanted, there = plan.study.gpus_per_trial, cluster.gpus()
    if wanted > there and cluster.is_private(plan.study.address):
        raise Refused(f"gpus_per_trial={wanted:g} but this machine has {there:g} GPUs; set --gpus-per-trial 0")


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the study's folder; a dead owner holds nothing. Raises `Refused` naming the owner if it is in use."""
    with (root / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise Refused(
                f"{root} is in use by {lock.read().strip() or 'another process'}; wait for it to end"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


def _finish(plan: Plan, failures: Sequence[str]) -> None:
    from analysis import report

    outcome = report.build(plan.root)
    for title, frame in (("Winners", outcome.winners), ("Recovery under attack", outcome.recovery)):
        table(title, list(frame.columns), frame.to_numpy().tolist())
    for failure in failures:
        console.print(f"failed: {failure}", markup=False)
    console.print(f"Report: {outcome.page}", markup=False)
