"""Learn, search, confirm, attack, report: each stage is skipped where its results are on disk."""

from __future__ import annotations

import fcntl
import os
import platform
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from study import cluster, trial
from study.cluster import Job
from study.console import Stage, console, table
from study.contracts import BaseModel, Learned, Source, Trial
from study.methods.none import NoMethod
from study.objectives import winner
from study.plugins import name_of
from study.presets import Study, plugin
from study.questions import MODALITIES, ROLES, Benchmark
from study.store import Folder, Json, canonical, content_key, read_json, read_rows, write_json
from study.trial import Bench

if TYPE_CHECKING:  # Ray reads its settings when it is imported, so tuning and workers are imported once it is set up
    from study.tuning import Search

RUNTIME = ("study_dir", "workers", "gpus_per_trial", "threads", "address", "dry_run", "cost")
GROWING = ("methods", "trials", "confirm_seeds", "attacks", "attack_grid", "defaults")
PACKAGES = ("torch", "transformers", "peft", "ray", "optuna", "pandas", "numpy", "tokenizers", "pillow")


class Refused(Exception):
    """The study cannot be run as asked; the message says what to change."""


@dataclass(frozen=True)
class Plan:
    """A study made concrete: its plug-ins, what is learned and the yardstick trials of each ratio."""

    study: Study
    model: BaseModel
    source: Source
    benchmark: Benchmark

    @property
    def root(self) -> Path:
        """The study's folder, absolute: workers have their own working directories."""
        return self.study.study_dir.absolute()

    @property
    def folder(self) -> Folder:
        """Where everything lies."""
        return Folder(self.root)

    @property
    def vanilla(self) -> Learned:
        """The model that was taught everybody."""
        return self._learned("vanilla", None)

    def reference(self, ratio: int) -> Learned:
        """The model that was never taught what a ratio's request covers."""
        return self._learned("reference", ratio)

    def yardsticks(self, ratio: int) -> tuple[Trial, Trial]:
        """Vanilla and the reference as trials: no method, scored and attacked like any other."""
        goal, seed = self.study.goal, self.study.seed
        return (
            Trial(self.vanilla, NoMethod(), goal, ratio, seed),
            Trial(self.reference(ratio), NoMethod(), goal, ratio, seed),
        )

    def _learned(self, kind: Any, ratio: int | None) -> Learned:
        return Learned(
            kind=kind,
            base=content_key(self.model),
            benchmark=self.benchmark.fingerprint,
            goal=None if ratio is None else self.study.goal,
            ratio=ratio,
            schedule=self.study.learn,
            parts=self.study.learn_parts,
            seed=self.study.seed,
        )


def run(study: Study) -> int:
    """Run a study to its report; returns the exit status. Raises `Refused` or `ValueError` before any training."""
    plan = _prepared(study)
    _print_plan(plan)
    if study.dry_run:
        return 0
    with _locked(plan.root):
        _settle(plan)
        with cluster.started(study.address, study.workers, study.threads):
            failures = _stages(plan)
    _finish(plan, failures)
    return 1 if failures else 0


def _prepared(study: Study) -> Plan:
    """Everything that can be wrong is found here, before a model is loaded."""
    root = study.study_dir.absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".writable").open("w"):
            pass
        (root / ".writable").unlink()
    except OSError as error:
        raise Refused(
            f"study folder {root} cannot be written ({error.strerror}); choose another --study-dir"
        ) from error
    model, source = plugin("models", study.model), plugin("benchmarks", study.benchmark)
    benchmark = source(Folder(root).data)
    for ratio in study.forget_ratios:
        benchmark.split(ratio)
    if hasattr(model, "path"):
        model(Folder(root).data)
    study.method_defaults(), study.attackers()
    plan = Plan(study, model, source, benchmark)
    _check_settings(plan)
    return plan


# ---- stages ----------------------------------------------------------------------------------------------------
def _stages(plan: Plan) -> list[str]:
    """All stages; returns what failed on the way."""
    _check_resources(plan)
    bench = _learn(plan)
    _gate(plan)
    search = _search_of(plan, bench)
    failures = _search(plan, search)
    winners = _winners(plan, search)
    failures += _confirm(plan, bench, winners)
    failures += _attack(plan, bench, winners)
    return failures


def _learn(plan: Plan) -> Bench:
    """The base model, then vanilla and the references side by side, then their scores."""
    from study.workers import learn_all  # Ray Train takes seconds to import; a dry run does without

    study = plan.study
    device = "cuda" if study.gpus_per_trial else "cpu"
    bench = Bench(plan.root, plan.source, plan.root, device)
    base = plan.folder.data / "base.json"
    if not base.exists():
        with Stage("base", 1, "model") as stage:
            _raise_first(
                cluster.run_all(
                    [Job(study.model, _make_base, (plan.model, plan.folder, base))],
                    lambda job, error: stage.advance(error or "ready"),
                    gpus=0,
                )
            )
    found = Path(read_json(base)["path"])
    bench = replace(bench, base=found if found.is_absolute() else plan.root / found)
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

            cpus = min(1.0, study.workers / len(missing))
            learn_all(bench, missing, cpus=cpus, gpus=study.gpus_per_trial, on_progress=tell)
    jobs = [
        Job(f"{names[t.start]} on {t.ratio} %", _yardstick, (bench, t, plan.reference(t.ratio).key))
        for ratio in study.forget_ratios
        for t in plan.yardsticks(ratio)
        if not plan.folder.rows(t.key, "blind").exists()
    ]
    _raise_first(_jobs("score", jobs, study))
    return bench


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
    from study.tuning import search_all

    missing = search.missing()
    if missing:
        with Stage("search", missing, "trials") as stage:
            search_all(search, at_once=_at_once(plan.study), gpus=plan.study.gpus_per_trial, tell=stage.advance)
    return [f"{method}: every trial failed" for method in search.defaults if not search.judgements(method)]


def _winners(plan: Plan, search: Search) -> list[Trial]:
    """The winner of each method at each ratio with its further seeds, chosen from the rows and written down."""
    study = plan.study
    chosen: list[Trial] = []
    keys: dict[str, dict[str, Json]] = {}
    for method in search.defaults:
        judged = search.judgements(method)
        keys[method] = {}
        for ratio in study.forget_ratios:
            there = {t.key: (t, values) for t, values in judged.items() if t.ratio == ratio}
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
        Job(f"{_label(t)} seed {t.seed}", _confirmed, (bench, t, plan.reference(t.ratio).key))
        for t in winners
        if not plan.folder.rows(t.key, "report").exists() and not _ended_badly(plan.folder, t)
    ]
    errors = _jobs("confirm", jobs, plan.study)
    return [f"confirming {name}: {error}" for name, error in errors.items()]


def _attack(plan: Plan, bench: Bench, winners: Sequence[Trial]) -> list[str]:
    """Attack each winner's first seed, vanilla (the ceiling) and the reference (the control) alike."""
    study = plan.study
    targets = [t for t in winners if t.seed == study.seed]
    targets += [t for ratio in study.forget_ratios for t in plan.yardsticks(ratio)]
    jobs = [
        Job(f"{name_of(a)} {i + 1} on {_label(t)}", trial.attack, (bench, t, a, plan.reference(t.ratio).key))
        for t in targets
        for i, a in enumerate(study.attackers())
        if not plan.folder.attack(t.key, content_key(a)).exists()
    ]
    errors = _jobs("attack", jobs, study)
    return [f"attack {name}: {error}" for name, error in errors.items()]


# ---- jobs: module-level functions, so that workers can import them ------------------------------------------------
def _make_base(model: BaseModel, folder: Folder, note: Path) -> None:
    """Make the base model and note where it is, relative to the study if it lies inside."""
    cluster.quiet_worker()
    path = model(folder.data).absolute()
    write_json(note, {"path": str(path.relative_to(folder.root) if path.is_relative_to(folder.root) else path)})


def _yardstick(bench: Bench, yardstick: Trial, reference: str) -> None:
    trial.run(bench, yardstick, reference)
    trial.report(bench, yardstick, blind=True)


def _confirmed(bench: Bench, confirmed: Trial, reference: str) -> None:
    if trial.run(bench, confirmed, reference)["state"] == "complete":
        trial.report(bench, confirmed)


def _jobs(name: str, jobs: Sequence[Job], study: Study) -> dict[str, str]:
    if not jobs:
        return {}
    with Stage(name, len(jobs), "jobs") as stage:

        def done(job: Job, error: str) -> None:
            stage.advance(f"{job.name}{': ' + error if error else ''}", every=0 if error else 5)

        return cluster.run_all(jobs, done, gpus=study.gpus_per_trial)


def _raise_first(errors: Mapping[str, str]) -> None:
    for name, error in errors.items():
        raise Refused(f"{name} failed: {error}")


def _label(t: Trial) -> str:
    name = t.start.kind if isinstance(t.method, NoMethod) else name_of(t.method)
    return f"{name} {t.ratio} %"


def _ended_badly(folder: Folder, t: Trial) -> bool:
    path = folder.record(t.key)
    return path.exists() and read_json(path)["state"] != "complete"


def _at_once(study: Study) -> int:
    if study.gpus_per_trial:
        return max(1, int(cluster.resources()["GPU"] / study.gpus_per_trial))
    return study.workers


def _check_resources(plan: Plan) -> None:
    """A job that nothing can run would wait for ever."""
    wanted, there = plan.study.gpus_per_trial, cluster.resources()["GPU"]
    if wanted > there and not plan.study.address:
        raise Refused(f"gpus_per_trial={wanted:g} but this machine's Ray has {there:g} GPUs; set --gpus-per-trial 0")


# ---- the gate ----------------------------------------------------------------------------------------------------
def _gate(plan: Plan) -> None:
    """Print what was learned beside the blind level. Raises `Refused` with the numbers if it is not enough."""
    failed = []
    rows: list[list[object]] = []
    for ratio in plan.study.forget_ratios:
        for yardstick in plan.yardsticks(ratio):
            scores, blind = _accuracies(plan.folder, yardstick.key)
            short = _shortfalls(plan, yardstick, scores, blind)
            failed += [f"{_label(yardstick)}: {what}" for what in short]
            for role in ROLES:
                cells = [scores[role, "image_text"], blind[role], scores[role, "text"]]
                rows.append([_label(yardstick), role, *cells])
    table(
        "What was learned: accuracy of classification", ["model", "people", "image", "blind (grey image)", "text"], rows
    )
    taught = (
        "keeps their text and never saw their pictures" if plan.study.goal == "visual" else "was taught nothing of them"
    )
    console.print(f"goal {plan.study.goal}: the reference {taught}")
    if failed:
        raise Refused("learning did not pass the gate, so nothing is unlearned: " + "; ".join(failed))


def _accuracies(folder: Folder, key: str) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    rows = pd.concat([read_rows(folder.rows(key, half)) for half in ("select", "report")])
    choices = rows[rows["task"] == "classification"]
    blind = read_rows(folder.rows(key, "blind"))
    return (
        choices.groupby(["role", "modality"])["score"].mean().to_dict(),
        blind.groupby("role")["score"].mean().to_dict(),
    )


def _shortfalls(
    plan: Plan, yardstick: Trial, scores: Mapping[tuple[str, str], float], blind: Mapping[str, float]
) -> list[str]:
    gate = plan.study.gate
    if yardstick.start.kind == "reference":
        options = {len(q.options) for q in plan.benchmark.split(yardstick.ratio).questions if q.options}
        most = max(blind["forget"], 1 / min(options)) + gate.blind
        seen = scores["forget", "image_text"]
        return [f"{seen:.3f} on forget images, more than {most:.3f} (blind level + {gate.blind:g})"] * (seen > most)
    wanted = {(role, modality): gate.known for role in ("forget", "retain", "real") for modality in MODALITIES}
    wanted["test", "image_text"] = gate.test
    return [
        f"{scores[group]:.3f} on {' '.join(group)}, less than {least:g}"
        for group, least in wanted.items()
        if scores[group] < least
    ]


# ---- before and after ----------------------------------------------------------------------------------------------
def _print_plan(plan: Plan) -> None:
    study, count = plan.study, len(plan.study.methods)
    models, ratios = 1 + len(study.forget_ratios), len(study.forget_ratios)
    confirms, targets = count * ratios * study.confirm_seeds, (count + 2) * ratios
    attacks = targets * len(study.attackers())
    people = len({lesson.person for split in plan.benchmark.splits.values() for lesson in split.lessons})
    stages = [
        (
            "learn",
            f"{models} models: vanilla and one reference for each of {list(study.forget_ratios)} % of {people} people",
        ),
        ("search", f"{count * study.trials} trials: {study.trials} each of {', '.join(study.methods)}"),
        ("confirm", f"{confirms} runs: {study.confirm_seeds} further seeds of {count * ratios} winners"),
        ("attack", f"{attacks} attacks: {len(study.attackers())} on each winner, vanilla and reference"),
        ("report", f"{plan.folder.report / 'report.html'}"),
    ]
    console.print(f"Study {study.study_dir}: {study.model} on {study.benchmark}, goal {study.goal}, seed {study.seed}")
    for name, what in stages:
        console.print(f"  {name:<8} {what}", markup=False)
    console.print(f"  time     {_expected(study, models, count * study.trials, confirms, attacks)}")


def _expected(study: Study, models: int, trials: int, confirms: int, attacks: int) -> str:
    cost = study.cost
    if cost is None:
        return "unknown for this preset until the first trials have run"
    work = models * cost.learn + trials * cost.trial + confirms * (cost.trial + cost.report) + attacks * cost.attack
    minutes = (cost.base + 60 + work / study.workers) / 60
    return f"about {minutes:.0f} minutes from nothing on {study.workers} cores; what is on disk is not run again"


def _settings(plan: Plan) -> Json:
    settings = {k: v for k, v in canonical(plan.study).items() if k not in RUNTIME and k != "type"}
    return {
        **settings,
        "model": canonical(plan.model),
        "benchmark": canonical(plan.source),
        "fingerprint": plan.benchmark.fingerprint,
    }


def _check_settings(plan: Plan) -> None:
    """Refuse a folder that holds a study with other settings, field by field."""
    if not plan.folder.settings.exists():
        return
    before, now = read_json(plan.folder.settings)["settings"], _settings(plan)
    changed = [
        f"  {name}: {a} there, {b} asked"
        for name, a, b in _differences(before, now)
        if name.split(".")[0] not in GROWING
    ]
    changed += [
        f"  {name}: another default there"
        for name in sorted({*before["defaults"]} & {*now["defaults"]})
        if before["defaults"][name] != now["defaults"][name]
    ]
    if changed:
        raise Refused(
            "\n".join(
                [
                    f"{plan.root} holds a study with other settings:",
                    *changed,
                    "give those, or choose another --study-dir",
                ]
            )
        )


def _differences(a: Json, b: Json, name: str = "") -> Iterator[tuple[str, Json, Json]]:
    """The leaves at which two JSON values differ, as (dotted name, one, other)."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from _differences(a.get(key), b.get(key), f"{name}.{key}".lstrip("."))
    elif a != b:
        yield name, a, b


def _settle(plan: Plan) -> None:
    """Write down what this study is."""
    names = {"name": plan.study.study_dir.name, "settings": _settings(plan), "git": _revision()}
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    write_json(plan.folder.settings, {**names, "versions": versions})


def _revision() -> str:
    """The git revision of this project, with a plus sign if files differ from it; empty outside a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=cluster.PROJECT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the study's folder. Raises `Refused` naming the owner if another process does; a dead owner holds nothing."""
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

    path = report.build(plan.root)
    winners, recovery = report.summary(plan.root)
    for title, frame in (("Winners", winners), ("Recovery under attack", recovery)):
        table(title, list(frame.columns), frame.to_numpy().tolist())
    for failure in failures:
        console.print(f"failed: {failure}", markup=False)
    console.print(f"Report: {path}", markup=False)
