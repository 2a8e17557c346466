"""Ray Tune runs the search, Optuna proposes. The only module that knows both.

What is proposed, and that this does not depend on how it is run, is `study.series`' business; Tune only runs it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import BaseTrial
from ray import tune
from ray.tune import Callback, RunConfig, TuneConfig, Tuner
from ray.tune.search import Searcher

from study.cluster import NotShared, quiet_worker
from study.contracts import Attack, Learned, Method, Trial
from study.objectives import DIRECTIONS, ROBUST_DIRECTIONS
from study.plan import Failed
from study.plugins import search_space
from study.questions import Goal
from study.recovery import objective
from study.series import Outcome, Series, propose
from study.specs import name_in, parameters, pinned
from study.store import Json, content_key, read_json, read_rows
from study.trial import Bench, attack_failed, attack_state, attacked, judged, keep_record, run
from study.warm_start import RATIO, Params
from study.workers import Team, together


@dataclass(frozen=True)
class Search(Series[Trial]):
    """The search of methods: for each a default to start from, and the yardsticks of each ratio."""

    bench: Bench
    defaults: Mapping[str, Method]
    """By what the study calls each method."""
    trials: int
    ratios: tuple[int, ...]
    vanilla: Learned
    references: Mapping[int, str]
    """The key of the learned reference of each ratio."""
    yardsticks: Mapping[int, tuple[str, str]]
    """The keys of the trials that are vanilla and the reference, by ratio."""
    goal: Goal
    seed: int
    lookahead: int
    random_trials: int
    attacker: Attack | None = None
    """What every trial is attacked with: what comes back is the third objective. None for a search without one."""
    keeps: float = 0.0
    """Least part of the retain accuracy that the attack must leave for what it shows to count."""
    warm: Mapping[str, Mapping[int, Params]] = field(default_factory=dict)
    """Parameters that won in an earlier study, by method and ratio; a method without any begins cold."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The methods."""
        return tuple(self.defaults)

    @property
    def directions(self) -> Mapping[str, str]:
        """Those of the two objectives, or of three if every trial is attacked."""
        return ROBUST_DIRECTIONS if self.attacker else DIRECTIONS

    def place(self, label: str, number: int) -> Path:
        """Below the method's name."""
        return self.bench.folder.proposal(label, number)

    def asked(self, label: str, trial: BaseTrial) -> Trial:
        """A trial of the method at a ratio."""
        ratio = trial.suggest_categorical(RATIO, self.ratios)
        proposed = search_space(name_in(label)).space(trial, self.defaults[label])
        return Trial(self.vanilla, proposed, self.goal, int(ratio), self.seed, label)

    def fixed(self, label: str, number: int) -> Mapping[str, Any]:
        """The ratio, which is dealt in turn, and what was set on the command line."""
        return {RATIO: self._ratio(number), **pinned(self.defaults[label], label)}

    def start(self, label: str, number: int) -> Mapping[str, Any] | None:
        """The first proposal at each ratio is the default, so that a report can say what tuning bought; the second
        is what won in an earlier study, if there is such a thing."""
        start = {RATIO: self._ratio(number), **parameters(self.defaults[label])}
        warm = self._warm(label, number)
        return {**start, **warm} if warm or number < len(self.ratios) else None

    def about(self, label: str, job: Trial, number: int) -> dict[str, Json]:
        """The ratio, and whether it is the default, or what won in an earlier study."""
        warm = {"warm": True} if self._warm(label, number) else {}
        return {"ratio": job.ratio, "default": number < len(self.ratios), **warm}

    def finished(self, job: Trial) -> bool:
        """Whether the trial has its record and, if it ended well, has met the attack of the search."""
        if self._state(job) != "complete" or self.attacker is None:
            return self._state(job) != "missing"
        return attack_state(self.bench.folder, job, self.attacker) != "missing"

    def outcome(self, job: Trial) -> Outcome | None:
        """The objectives of a trial, or nothing if it is unfinished, failed or diverged, or its attack is."""
        if self._state(job) != "complete":
            return None
        values = judged(self.bench, job, *self.yardsticks[job.ratio])
        if self.attacker is None:
            return Outcome(values)
        recovery = self._recovery(job, self.attacker, values["utility"])
        return None if math.isnan(recovery) else Outcome({**values, "recovery": recovery})

    def execute(self, job: Trial, waited: float) -> dict[str, Any]:
        """Run the trial and attack what it leaves; a trial that is on disk is only attacked."""
        state = run(self.bench, job, self.references[job.ratio], waited=waited)["state"]
        if state == "complete" and self.attacker:
            reason = attacked(self.bench, job, self.attacker, self.references[job.ratio])
            state = f"the attack failed: {reason}" if reason else state
        outcome = self.outcome(job)
        return {"state": state, **(outcome.values if outcome else {})}

    def lost(self, job: Trial, reason: str) -> None:
        """A failed trial, or a failed attack on one that had ended well."""
        if self.attacker and self._state(job) == "complete":
            attack_failed(self.bench.folder, job, self.attacker, reason)
        else:
            keep_record(self.bench.folder, job, "failed", reason, cost={})

    def told(self, label: str, number: int, job: Trial) -> str:
        """The method, the number and the ratio."""
        return f"{label} {number + 1} of {self.trials}, ratio {job.ratio} %"

    def _state(self, job: Trial) -> str:
        path = self.bench.folder.record(job.key)
        return str(read_json(path)["state"]) if path.exists() else "missing"

    def _recovery(self, job: Trial, attacker: Attack, utility: float) -> float:
        """What the attack got back, or NaN where it failed or measured nothing."""
        if attack_state(self.bench.folder, job, attacker) != "complete":
            return math.nan
        _, reference = self.yardsticks[job.ratio]
        paths = (self.bench.folder.attack(key, content_key(attacker)) for key in (job.key, reference))
        own, control = map(read_rows, paths)
        try:
            return objective(own, control, "select", utility=utility, keeps=self.keeps)
        except ValueError:  # everything was given away, so that there is nothing to compare: as good as failed
            return math.nan

    def _ratio(self, number: int) -> int:
        return self.ratios[number % len(self.ratios)]

    def _warm(self, label: str, number: int) -> Params:
        """The earlier winner's parameters that a proposal starts from: only the second one at a ratio has any."""
        second = number // len(self.ratios) == 1
        return self.warm.get(label, {}).get(self._ratio(number), {}) if second else {}


class Proposals(Searcher):
    """A Tune searcher that asks the series of a search in turn, and skips what is on disk."""

    def __init__(self, search: Series[Any], team: Team | None = None) -> None:
        super().__init__()
        self.search, self.team = search, team
        self.waiting = [(number, label) for number in range(search.trials) for label in search.labels]
        self.asked: dict[str, str] = {}
        """The key of the job that each of Tune's trials was asked to run: an equal one is not run beside it."""
        self.places: dict[str, tuple[int, str]] = {}
        """The proposal behind each of Tune's trials."""
        self.running: set[str] = set()
        """Those of Tune's trials that have not ended: one that dies is asked for again."""
        self.again: set[str] = set()
        """The keys of jobs whose workers died once: each is given to another worker."""
        self.ended: set[tuple[str, int]] = set()
        """The proposals that are known to have ended: these are not looked for on disk again."""
        self.dead: dict[str, Any] = {}
        """The jobs, by key, whose workers died for good: they leave no record before the search ends."""

    def suggest(self, trial_id: str) -> Any:  # Tune's own annotation forgets that a search may be FINISHED
        """The next job that may run, nothing for now, or that there is none left."""
        blocked: set[str] = set()
        for number, label in list(self.waiting):
            if label in blocked or not self._ready(label, number):
                blocked.add(label)  # its later proposals wait for all that this one waits for
                continue
            job = self.search.replay(label, propose(self.search, label, number))
            self.waiting.remove((number, label))
            if not self.search.finished(job) and job.key not in self.asked.values():
                self.asked[trial_id], self.places[trial_id] = job.key, (number, label)
                self.running.add(trial_id)
                return {
                    "search": self.search,
                    "job": job,
                    "label": self.search.told(label, number, job),
                    "team": self.team,
                }
        return None if self.waiting or self.running else Searcher.FINISHED  # Tune never asks again after FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Give a job that died to another worker, once; later proposals wait for those that leave a record on disk.

        Tune's own retry gives up at once where a machine is lost: its reused actor fails twice, by one loss.
        """
        self.running.discard(trial_id)
        if not error:
            return
        key, (number, label) = self.asked[trial_id], self.places[trial_id]
        if key in self.again:
            self.dead[key] = self.search.job(label, read_json(self.search.place(label, number))["params"])
        else:
            self.again.add(key)
            del self.asked[trial_id]
            self.waiting.insert(0, (number, label))

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study folder remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the study folder remembers."""

    def _ready(self, label: str, number: int) -> bool:
        """Whether every proposal that this one is drawn from has ended."""
        for earlier in range(number - self.search.lookahead + 1):
            if (label, earlier) in self.ended:
                continue
            path = self.search.place(label, earlier)
            if not path.exists():
                return False
            job = self.search.job(label, read_json(path)["params"])
            if not self.search.finished(job) and job.key not in self.dead:
                return False
            self.ended.add((label, earlier))
        return all(self.search.place(label, n).exists() for n in range(number))


_idle_since = time.monotonic()


def trainable(config: dict[str, Any]) -> None:
    """One job in a Tune worker. Workers are reused, so the model stays loaded from one job to the next."""
    global _idle_since
    quiet_worker()
    waited, team = time.monotonic() - _idle_since, config["team"]
    execute, arguments = config["search"].execute, (config["job"], waited)
    tune.report(together(execute, arguments, team) if team else execute(*arguments))
    _idle_since = time.monotonic()


class _Shown(Callback):
    """Tells the screen of every trial that ends. The screen itself does not travel: Tune pickles callbacks."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell: Callable[[str], None] | None = tell

    def __getstate__(self) -> dict[str, Any]:
        return {"tell": None}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last = trial.last_result or {}
        shown = " ".join(f"{name} {last[name]:.3f}" for name in trial.config["search"].directions if name in last)
        if self.tell:
            self.tell(f"{trial.config['label']}: {shown or last.get('state', 'no result')}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self.tell:
            self.tell(f"{trial.config['label']}: failed")


def search_all(
    search: Series[Any],
    *,
    at_once: int,
    gpus: float,
    logs: Path,
    tell: Callable[[str], None],
    team: Team | None = None,
) -> None:
    """Run a search until every series has its number of trials; what is on disk is not run again.

    Each trial is done by one process, or by a `team`, which asks for CPUs and GPUs of its own.
    A trial whose worker dies is tried once more and then recorded as failed. Raises `KeyboardInterrupt` if the run
    was interrupted.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    proposals = Proposals(search, team)
    tuner = Tuner(
        tune.with_resources(trainable, {"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}),
        tune_config=TuneConfig(
            search_alg=proposals,
            num_samples=2 * len(proposals.waiting),  # each may be given out twice
            max_concurrent_trials=at_once,
            reuse_actors=team is None,  # one that holds a trainer hangs if it is stopped, and has nothing to keep
        ),
        run_config=RunConfig(
            name=f"search-{time.time_ns()}",
            storage_path=str(logs),
            verbose=0,
            callbacks=[_Shown(tell)],
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # Tune prints boxes and hints even at verbosity 0
        results = tuner.fit()
    reasons: dict[str, str] = {}
    for result in map(results.__getitem__, range(len(results))):
        lines = [line for line in str(result.error or "").splitlines() if line.strip()]
        job = (result.config or {}).get("job")
        if not lines or job is None or search.finished(job):
            continue
        if NotShared.__name__ in lines[-1]:  # no fault of the trial's, which must be run again
            raise Failed(lines[-1])
        reasons[job.key] = lines[-1]
    for key, job in proposals.dead.items():
        if not search.finished(job):
            search.lost(job, reasons.get(key, "the worker died"))
    if search.missing():
        raise KeyboardInterrupt  # Tune turns the first Ctrl-C into an early but normal return
