"""Ray Tune runs the search, Optuna proposes. The only module that knows both.

The study folder is the memory: each proposal is written down before it runs, and the sampler is rebuilt from disk for
every proposal. Proposal n of a method is drawn from the results of proposals up to n - lookahead alone, so the search
is the same whatever the number of workers, the order in which trials end, or how often the study was killed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import optuna
from optuna.samplers import PartialFixedSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial
from ray import tune
from ray.tune import Callback, RunConfig, TuneConfig, Tuner
from ray.tune.search import Searcher

from study.cluster import quiet_worker
from study.contracts import Learned, Method, Trial
from study.objectives import DIRECTIONS
from study.plugins import search_space
from study.questions import Goal
from study.store import Json, content_key, read_json, write_json
from study.trial import Bench, judged, keep_record, run

RATIO = "forget_ratio"


@dataclass(frozen=True)
class Search:
    """What is searched: for each method a default to start from, and the yardsticks of each ratio."""

    bench: Bench
    defaults: Mapping[str, Method]
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

    def trial(self, method: str, params: Mapping[str, Any]) -> Trial:
        """The trial that a proposal asks for: spaces are replayed from their parameters."""
        asked = FixedTrial(dict(params))
        ratio = asked.suggest_categorical(RATIO, self.ratios)
        proposed = search_space(method).space(asked, self.defaults[method])
        return Trial(self.vanilla, proposed, self.goal, int(ratio), self.seed)

    def replay(self, method: str, proposal: Json) -> Trial:
        """The trial of a proposal on disk. Raises `ValueError` if today's code makes another trial of it."""
        trial = self.trial(method, proposal["params"])
        if trial.key != proposal["trial"]:
            raise ValueError(
                f"proposal {proposal['number']} of {method} was made by other code: its parameters now give trial "
                f"{trial.key}, not {proposal['trial']}. Choose another --study-dir"
            )
        return trial

    def judged(self, trial: Trial) -> dict[str, float] | None:
        """The objectives of a trial, or nothing if it is unfinished, failed or diverged."""
        path = self.bench.folder.record(trial.key)
        if not path.exists() or read_json(path)["state"] != "complete":
            return None
        return judged(self.bench, trial, *self.yardsticks[trial.ratio])

    def proposals(self, method: str) -> list[Json]:
        """What has been proposed for a method so far, in order."""
        found: list[Json] = []
        while (path := self.bench.folder.proposal(method, len(found))).exists():
            found.append(read_json(path))
        return found

    def ended(self, method: str) -> list[Trial]:
        """The trials of a method, in the order in which they were proposed, that have ended one way or another."""
        proposed = [self.replay(method, proposal) for proposal in self.proposals(method)[: self.trials]]
        return [trial for trial in proposed if self.finished(trial)]

    def missing(self) -> int:
        """How many trials are still to be run."""
        return sum(self.trials - len(self.ended(method)) for method in self.defaults)

    def judgements(self, method: str) -> dict[Trial, dict[str, float]]:
        """The objectives of the trials of a method that ended well."""
        judged = {trial: self.judged(trial) for trial in self.ended(method)}
        return {trial: values for trial, values in judged.items() if values is not None}

    def finished(self, trial: Trial) -> bool:
        """Whether a trial has ended, one way or another."""
        return self.bench.folder.record(trial.key).exists()


class Proposals(Searcher):
    """A Tune searcher that asks one Optuna study a method, in turn, and skips what is on disk."""

    def __init__(self, search: Search) -> None:
        super().__init__()
        self.search = search
        self.waiting = [(number, method) for number in range(search.trials) for method in search.defaults]
        self.asked: dict[str, str] = {}
        """The key of the trial that each of Tune's trials was asked to run: an equal one is not run beside it."""
        self.lost: set[str] = set()
        """The keys of trials whose workers died for good: they leave no record before the search ends."""

    def suggest(self, trial_id: str) -> Any:  # Tune's own annotation forgets that a search may be FINISHED
        """The next trial that may run, nothing for now, or that there is none left."""
        for number, method in list(self.waiting):
            if not self._ready(method, number):
                continue
            proposal = propose(self.search, method, number)
            trial = self.search.replay(method, proposal)
            self.waiting.remove((number, method))
            if not self.search.finished(trial) and trial.key not in self.asked.values():
                self.asked[trial_id] = trial.key
                label = f"{method} {number + 1} of {self.search.trials}, ratio {trial.ratio} %"
                return {"search": self.search, "trial": trial, "label": label}
        return None if self.waiting else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note a trial that died: later proposals wait for those that leave a record on disk."""
        if error:
            self.lost.add(self.asked[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study folder remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the study folder remembers."""

    def _ready(self, method: str, number: int) -> bool:
        """Whether every proposal that this one is drawn from has ended."""
        for earlier in range(number - self.search.lookahead + 1):
            path = self.search.bench.folder.proposal(method, earlier)
            if not path.exists():
                return False
            trial = self.search.trial(method, read_json(path)["params"])
            if not self.search.finished(trial) and trial.key not in self.lost:
                return False
        return all(self.search.bench.folder.proposal(method, n).exists() for n in range(number))


def propose(search: Search, method: str, number: int) -> Json:
    """Proposal `number` of a method, drawn by Optuna and written down unless it was already.

    The first proposal at each ratio is the default, so that a report can say what tuning bought.
    """
    path = search.bench.folder.proposal(method, number)
    if path.exists():
        return read_json(path)
    ratio = search.ratios[number % len(search.ratios)]
    default = number < len(search.ratios)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = TPESampler(
            seed=int(content_key([search.seed, method, number]), 16) % 2**32,
            multivariate=True,
            constant_liar=True,
            n_startup_trials=search.random_trials,
        )
        study = optuna.create_study(
            directions=[StudyDirection[d.upper()] for d in DIRECTIONS.values()],
            sampler=PartialFixedSampler({RATIO: ratio}, sampler),
        )
    for n, earlier in enumerate(search.proposals(method)[:number]):
        study.add_trial(_told(search, method, earlier["params"], known=n <= number - search.lookahead))
    if default:
        study.enqueue_trial({RATIO: ratio, **_flat(search.defaults[method])})
    asked = study.ask()
    asked.suggest_categorical(RATIO, search.ratios)
    proposed = search_space(method).space(asked, search.defaults[method])
    trial = Trial(search.vanilla, proposed, search.goal, ratio, search.seed)
    proposal = {"number": number, "ratio": ratio, "default": default, "params": asked.params, "trial": trial.key}
    write_json(path, proposal)
    return proposal


def _told(search: Search, method: str, params: Mapping[str, Any], *, known: bool) -> FrozenTrial:
    """An earlier proposal as Optuna should see it: complete, failed, or still running (the constant liar's case)."""
    replay = FixedTrial(dict(params))
    replay.suggest_categorical(RATIO, search.ratios)
    search_space(method).space(replay, search.defaults[method])
    values = search.judged(search.trial(method, params)) if known else None
    state = TrialState.RUNNING if not known else TrialState.FAIL if values is None else TrialState.COMPLETE
    return create_trial(
        state=state,
        params=replay.params,
        distributions=replay.distributions,
        values=None if values is None else [values[name] for name in DIRECTIONS],
    )


def _flat(method: object) -> dict[str, Any]:
    """A method's fields, those of its schedule among them, as parameters to propose."""
    flat: dict[str, Any] = {}
    assert is_dataclass(method)
    for field in fields(method):
        value = getattr(method, field.name)
        flat |= _flat(value) if is_dataclass(value) else {field.name: value}
    return flat


_idle_since = time.monotonic()


def trainable(config: dict[str, Any]) -> None:
    """One trial in a Tune worker. Workers are reused, so the model stays loaded from one trial to the next."""
    global _idle_since
    quiet_worker()
    search, trial = config["search"], config["trial"]
    waited = time.monotonic() - _idle_since
    record = run(search.bench, trial, search.references[trial.ratio], waited=waited)
    tune.report({"state": record["state"], **(search.judged(trial) or {})})
    _idle_since = time.monotonic()


class _Shown(Callback):
    """Tells the screen of every trial that ends. The screen itself does not travel: Tune pickles callbacks."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell: Callable[[str], None] | None = tell

    def __getstate__(self) -> dict[str, Any]:
        return {"tell": None}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last = trial.last_result or {}
        shown = " ".join(f"{name} {last[name]:.3f}" for name in DIRECTIONS if name in last)
        if self.tell:
            self.tell(f"{trial.config['label']}: {shown or last.get('state', 'no result')}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self.tell:
            self.tell(f"{trial.config['label']}: failed")


def search_all(search: Search, *, at_once: int, gpus: float, tell: Callable[[str], None]) -> None:
    """Run the search until every method has its number of trials; what is on disk is not run again.

    A trial whose worker dies is tried once more and then recorded as failed. Raises `KeyboardInterrupt` if the run
    was interrupted.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    proposals = Proposals(search)
    tuner = Tuner(
        tune.with_resources(trainable, {"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}),
        tune_config=TuneConfig(
            search_alg=proposals,
            num_samples=len(proposals.waiting),
            max_concurrent_trials=at_once,
            reuse_actors=True,
        ),
        run_config=RunConfig(
            name=f"search-{time.time_ns()}",
            storage_path=str(search.bench.root / "ray"),
            verbose=0,
            callbacks=[_Shown(tell)],
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # Tune prints boxes and hints even at verbosity 0
        results = tuner.fit()
    for result in map(results.__getitem__, range(len(results))):
        trial = (result.config or {}).get("trial")
        if result.error and trial and not search.finished(trial):
            lines = [line for line in str(result.error).splitlines() if line.strip()]
            keep_record(search.bench.folder, trial, "failed", lines[-1] if lines else "the worker died", cost={})
    if search.missing():
        raise KeyboardInterrupt  # Tune turns the first Ctrl-C into an early but normal return
