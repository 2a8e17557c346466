"""Learn, search, confirm, attack, report: each stage is skipped where its results are on disk."""

from __future__ import annotations

import fcntl
import math
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
from study.contracts import Attack, BaseModel, Trial
from study.metric_check import check_metrics
from study.objectives import front, winner
from study.outline import show
from study.plan import GROWING, Failed, Plan, Refused, label, prepared, settle
from study.recovery import objective
from study.released_stage import score_by_released
from study.running import cpus, run_jobs, run_search, teach
from study.sequence import in_sequence
from study.settings import Study
from study.storage import fetch, mirrored, place
from study.store import Folder, Json, content_key, read_json, read_rows, write_json
from study.trial import Bench

if TYPE_CHECKING:  # Ray reads its settings when it is imported, so tuning and workers are imported once it is set up
    from study.tuning import Search

Judged = Mapping[tuple[str, int], Mapping[Trial, Mapping[str, float]]]
"""The objectives of trials, by method and ratio."""


def run(study: Study) -> int:
    """Run a study to its report; returns the exit status. Raises `Refused` or `ValueError` before any
    training, and `Failed` if the study cannot go on."""
    if study.dry_run:
        with tempfile.TemporaryDirectory() as data:
            show(prepared(study, Path(data)))
        return 0
    _fetch(study)
    plan = prepared(study, Folder(study.study_dir.absolute()).data)
    show(plan)
    plan.root.mkdir(parents=True, exist_ok=True)
    with _locked(plan.root), mirrored(plan.root, study.storage, _warn):
        settle(plan)
        with cluster.started(study.address, cpus(study), study.threads, plan.root):
            failures = _stages(plan)
        _finish(plan, failures)
    return 1 if failures else 0


def _fetch(study: Study) -> None:
    """Bring a study home that is at its other address and not in its folder."""
    if study.storage and (files := fetch(place(study.storage), study.study_dir.absolute(), growing=GROWING)):
        console.print(f"storage: {files} files fetched from {study.storage}", markup=False)


def _warn(text: str) -> None:
    console.print(text, style="yellow", markup=False)


def _stages(plan: Plan) -> list[str]:
    """All stages; returns what failed on the way."""
    _check_resources(plan)
    _check_shared(plan)
    bench = _learn(plan)
    gate.check(plan)
    search = _search_of(plan, bench)
    run_search("search", plan, search)
    judged = _judged(search)
    failures = [f"{method}: every trial at {ratio} % failed" for (method, ratio), there in judged.items() if not there]
    winners, fronts = _winners(plan, judged), _fronts(plan, judged)
    failures += _confirm(plan, bench, [*winners, *fronts])
    failures += score_by_released(plan, bench, winners)
    failures += _sequence(plan, bench, winners)
    failures += attack_winners(plan, bench, winners, fronts)
    failures += search_attacks(plan, bench, winners)
    failures += check_metrics(plan, bench)
    return failures


def _learn(plan: Plan) -> Bench:
    """The base model, then vanilla and the references side by side, then their scores."""
    study = plan.study
    device = "cuda" if study.gpus_per_trial else "cpu"
    bench = Bench(plan.root, plan.source, plan.root, device, study.forget_attributes)
    settings = ("dtype", "attention", "quantized")
    kept = {name: getattr(plan.model, name) for name in settings if hasattr(plan.model, name)}
    bench = replace(bench, base=_base(plan), **kept)
    teach(plan, bench, [plan.vanilla, *(plan.reference(ratio) for ratio in study.forget_ratios)])
    attacker = study.search_attack()
    jobs = [
        Job(label(t), _yardstick, (bench, t, plan.reference(t.ratio).key, attacker))
        for ratio in study.forget_ratios
        for t in plan.yardsticks(ratio)
        if not plan.folder.rows(t.key, "blind").exists()
        or (attacker and trial.attack_state(plan.folder, t, attacker) != "complete")
    ]
    _raise_first(run_jobs("score", jobs, study))
    _check_controls(plan, attacker)
    return bench


def _check_controls(plan: Plan, attacker: Attack | None) -> None:
    """What comes back of trials is compared with the reference under the same attack, so that must leave numbers."""
    for t in (plan.yardsticks(ratio)[1] for ratio in plan.study.forget_ratios if attacker):
        rows = read_rows(plan.folder.attack(t.key, content_key(attacker)))
        if math.isnan(objective(rows, rows, "select", utility=1.0, keeps=0.0)):
            raise Failed(
                f"robustness={plan.study.robustness!r} breaks the reference of {t.ratio} % before its first step is "
                "scored, so that nothing can be compared with it; choose a milder attack and another --study-dir"
            )


def _base(plan: Plan) -> Path:
    """The base model's folder, made first if it is one that is made."""
    path: Path | None = getattr(plan.model, "path", None)
    if path is not None:
        return path.absolute()  # found, and looked at, when the plan was made
    note = plan.folder.data / "base.json"
    if not note.exists():
        with Stage("base", 1, "model") as stage:
            jobs = [Job(plan.study.model, _make_base, (plan.model, plan.folder, note))]
            _raise_first(cluster.run_all(jobs, lambda job, error: stage.advance(error or "ready"), at_once=1, gpus=0))
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
        attacker=study.search_attack(),
        keeps=study.attack_keeps,
        warm=plan.warm.params if plan.warm else {},
    )


def _winners(plan: Plan, judged: Judged) -> list[Trial]:
    """The winner of each method at each ratio with its further seeds, chosen from the rows and written down."""
    study = plan.study
    chosen: list[Trial] = []
    keys: dict[str, dict[str, Json]] = {method: {} for method, _ in judged}
    for (method, ratio), there in judged.items():
        if not there:
            continue
        best = next(t for t in there if t.key == winner({t.key: values for t, values in there.items()}))
        seeds = [replace(best, seed=study.seed + i) for i in range(study.confirm_seeds + 1)]
        chosen += seeds
        keys[method][str(ratio)] = {"trials": [t.key for t in seeds]}
    write_json(plan.folder.winners, keys)
    return chosen


def _fronts(plan: Plan, judged: Judged) -> list[Trial]:
    """All trials on the fronts of a study that also searches for robustness; none of any other, whose winners do."""
    if not plan.study.robustness:
        return []
    found = [(there, front({t.key: values for t, values in there.items()})) for there in judged.values()]
    return [t for there, keys in found for t in there if t.key in keys]


def _judged(search: Search) -> Judged:
    """The trials of each method and ratio that ended well, with their objectives: none where all failed."""
    outcomes = {method: search.outcomes(method) for method in search.defaults}
    return {
        (method, ratio): {t: outcome.values for t, outcome in ended.items() if t.ratio == ratio}
        for method, ended in outcomes.items()
        for ratio in search.ratios
    }


def _confirm(plan: Plan, bench: Bench, winners: Sequence[Trial]) -> list[str]:
    """Re-run winners on further seeds and score all of them, and fronts, on the questions that chose nobody."""
    attacker = plan.study.search_attack()
    jobs = [
        Job(f"{label(t)} seed {t.seed} ({t.key})", _confirmed, (bench, t, plan.reference(t.ratio).key, attacker))
        for t in dict.fromkeys(winners)
        if _unconfirmed(plan.folder, t, attacker)
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


def _yardstick(bench: Bench, yardstick: Trial, reference: str, attacker: Attack | None) -> None:
    """Score vanilla or the reference and attack it like every trial, if every trial is to be attacked."""
    trial.run(bench, yardstick, reference)
    trial.report(bench, yardstick, blind=True)
    if attacker:
        trial.attack(bench, yardstick, attacker, reference)


def _confirmed(bench: Bench, confirmed: Trial, reference: str, attacker: Attack | None) -> None:
    if trial.run(bench, confirmed, reference)["state"] == "complete":
        trial.report(bench, confirmed)
        if attacker:
            trial.attacked(bench, confirmed, attacker, reference)


def _raise_first(errors: Mapping[str, str]) -> None:
    for name, error in errors.items():
        raise Failed(f"{name} failed: {error}")


def _unconfirmed(folder: Folder, t: Trial, attacker: Attack | None) -> bool:
    """Whether a trial is still to be run, scored or attacked: one that ended badly is none of these."""
    path = folder.record(t.key)
    if path.exists() and read_json(path)["state"] != "complete":
        return False
    missing = attacker is not None and trial.attack_state(folder, t, attacker) == "missing"
    return missing or not folder.rows(t.key, "report").exists()


def _check_resources(plan: Plan) -> None:
    """A job that nothing can run would wait for ever; a cluster may still grow, this machine does not."""
    wanted, there = plan.study.gpus_per_trial, cluster.gpus()
    if not cluster.is_private(plan.study.address):
        return
    if wanted > there:
        raise Refused(f"gpus_per_trial={wanted:g} but this machine has {there:g} GPUs; set --gpus-per-trial 0")
    if wanted and (together := plan.study.workers_per_model) > there:
        raise Refused(
            f"workers_per_model={together} need a GPU each but this machine has {there:g}; set it to at most that"
        )


def _check_shared(plan: Plan) -> None:
    """On a cluster every node must see the study's folder; those that join later are asked by their first job."""
    blind = [] if cluster.is_private(plan.study.address) else cluster.blind_nodes(plan.root)
    if blind:
        raise Refused(
            f"study_dir={plan.root} is not seen on {', '.join(blind)}: every node must mount the same folder at that "
            "path (NFS, EFS, FSx, Filestore); choose such a --study-dir, or leave --address out for this machine alone"
        )


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
