"""Ray Tune runs the jobs that Optuna proposes.

`study.engine.optuna_search` decides what is proposed, independently of how Tune runs it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune import Callback, RunConfig, TuneConfig, Tuner
from ray.tune.search import Searcher

from study.core import signals
from study.core.failures import Failure, Streak
from study.engine.cluster import NotShared
from study.engine.failures import failure_of, killed_for_memory, lost_worker
from study.engine.isolation import is_spoilt
from study.engine.jobs import Chances, alone_on_device, quiet_worker
from study.engine.optuna_search import Proposer, SearchProblem
from study.engine.team import Team, run_on_team


class ProposalSearcher(Searcher):
    """A Tune searcher that takes proposals from all labels of a search in turn, and skips those on disk."""

    def __init__(self, search: SearchProblem[Any, Any], team: Team | None = None, *, whole: bool = True) -> None:
        super().__init__()
        self.search, self.team = search, team
        self.whole = whole
        """Whether no other job is on the device of a job: then it is the job itself that does not fit."""
        self.proposer = Proposer(search)
        self.waiting = [(0, turn, label) for turn, label in enumerate(search.labels)]
        """The next proposal of each label, by number and then by turn: a heap."""
        self.again: list[tuple[int, str]] = []
        """Proposals that have a second chance: they go first."""
        self.asked: dict[str, str] = {}
        """The key of the job of each of Tune's trials: an equal job is not run at the same time."""
        self.places: dict[str, tuple[int, str]] = {}
        """The proposal behind each of Tune's trials."""
        self.running: set[str] = set()
        """Those of Tune's trials that have not ended: the job of one that dies is suggested again."""
        self.chances = Chances()
        self.finished = False
        """Whether nothing is left to suggest; otherwise a search that ends was interrupted."""
        self.ended: Counter[str] = Counter()
        """The number of proposals of each label, from the first, that are known to have ended."""
        self.open: dict[str, tuple[str, Failure]] = {}
        """The jobs, by key, that failed without a result, with their names: what depends on them is not proposed."""
        self.streak, self.killed = Streak(), killed_for_memory()

    def suggest(self, trial_id: str) -> Any:  # Tune's own annotation forgets that a search may be FINISHED
        """The next job that may run; None if none may run now; FINISHED if none is left."""
        while self.again and not self.streak.ends:
            if again := self._given(trial_id, *self.again.pop(0)):
                return again
        given, blocked = None, []  # the later proposals of a label wait for all that one of them waits for
        while self.waiting and given is None and not self.streak.ends:
            number, turn, label = heappop(self.waiting)
            if number >= self.search.trials:
                continue
            if not self._is_ready(label, number):
                blocked.append((number, turn, label))
            elif not self._is_over(label, number):
                heappush(self.waiting, (number + 1, turn, label))
                given = self._given(trial_id, number, label)
        for place in blocked:
            heappush(self.waiting, place)
        if given is not None:
            return given
        # what waits while one stays open waits for that one
        self.finished = not self.running and (not self.waiting or bool(self.open))
        return Searcher.FINISHED if self.finished else None  # Tune never asks again after the former

    def _given(self, trial_id: str, number: int, label: str) -> Any:
        """What a worker is given to run a proposal, unless its job is done or given out already."""
        job = self._job(label, number)
        if self.search.is_done(job) or job.key in self.asked.values():
            return None
        self.asked[trial_id], self.places[trial_id] = job.key, (number, label)
        self.running.add(trial_id)
        return {
            "search": self.search,
            "job": job,
            "place": (label, number),
            "label": self.search.describe(label, number, job),
            "team": self.team,
        }

    def _job(self, label: str, number: int) -> Any:
        return self.search.job(label, self.proposer.propose(label, number).params)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Give a job whose worker died to another worker, once; later proposals wait until it has a record on disk.

        A job that fails otherwise stays open: an accident is no result, and the sampler must not hear of it. Tune's own
        retry gives up at once if a machine is lost: the loss makes its reused actor fail twice.
        """
        self.running.discard(trial_id)
        number, label = self.places[trial_id]
        job = self._job(label, number)
        failure = lost_worker(self.killed) if error else _told(result)
        self.killed = killed_for_memory() if error else self.killed
        if (result or {}).get(SPOILT):
            self.chances.spare_one()
        if failure is None or self.search.is_done(job):
            self.streak.add(None)
        elif self.chances.left(failure, job.key):
            del self.asked[trial_id]
            self.again.append((number, label))
        elif failure.smallest and self.whole:  # a device does not grow: that is how this trial ends here
            self.search.record_failure(job, failure.message)
        else:
            self.open[job.key] = self.search.describe(label, number, job), failure
            self.streak.add(failure)

    def is_run_again(self, trial_id: str) -> bool:
        """Whether a trial that has ended left its job to another one."""
        return trial_id not in self.asked

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study folder remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the study folder remembers."""

    def _is_ready(self, label: str, number: int) -> bool:
        """Whether every proposal on which this one depends has ended."""
        for earlier in range(self.ended[label], number - self.search.lookahead + 1):
            proposal = self.search.proposal(label, earlier)
            if proposal is None:
                return False
            if not self.search.is_done(self.search.job(label, proposal.params)):
                return False
            self.ended[label] = earlier + 1
        return True

    def _is_over(self, label: str, number: int) -> bool:
        """Whether a budget ends a label's search before this proposal, which is not on disk."""
        return not self.search.path(label, number).exists() and self.search.exhausted(label, number)


_idle_since = time.monotonic()


def trainable(config: dict[str, Any]) -> None:
    """One job in a Tune worker. Workers are reused, so the model stays loaded from one job to the next.

    A failure is reported like a result: what Tune makes of an exception is a text.
    """
    global _idle_since
    quiet_worker()
    waited, team = time.monotonic() - _idle_since, config["team"]
    execute, arguments = config["search"].execute, (config["job"], *config["place"], waited)
    try:
        shown = run_on_team(execute, arguments, team) if team else execute(*arguments)
    except Exception as error:
        failure = failure_of(error)
        shown = {"state": str(failure), FAILURE: json.dumps(failure.plain)}
    tune.report({**shown, SPOILT: is_spoilt()})
    _idle_since = time.monotonic()


FAILURE = "failure"
"""What a job reports that has failed: text, as Tune takes nested values apart."""


SPOILT = "spoilt"
"""Whether the worker of a job will end at its next one."""


def _told(result: dict[str, Any] | None) -> Failure | None:
    """The failure that a job reported, if it did."""
    text = (result or {}).get(FAILURE)
    return Failure(**json.loads(text)) if text else None


Tell = Callable[[str, float], None]
"""Called as each trial ends, with what became of it and how many jobs that ends: none if it is run again."""


class _Shown(Callback):
    """Shows every trial that ends on the screen, which is not pickled with the callback as Tune does."""

    def __init__(self, proposals: ProposalSearcher, tell: Tell) -> None:
        self.proposals, self.tell = proposals, tell

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last = trial.last_result or {}
        shown = " ".join(f"{name} {last[name]:.3f}" for name in trial.config["search"].directions if name in last)
        self._show(trial, shown or last.get("state", "no result"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._show(trial, "failed")

    def _show(self, trial: Any, what: str) -> None:
        again = self.proposals.is_run_again(trial.trial_id)  # Tune has told the searcher before
        self.tell(f"{trial.config['label']}: {what}{', run again' if again else ''}", 0 if again else 1)


def tune_search(
    search: SearchProblem[Any, Any],
    *,
    at_once: int,
    gpus: float,
    logs: Path,
    tell: Tell,
    team: Team | None = None,
    trackers: Sequence[Callback] = (),
) -> dict[str, Failure]:
    """Run a search until every label has its number of trials; those on disk are not run again.

    Each trial runs in one process, or in those of a `team`, which requests its own CPUs and GPUs. A trial whose worker
    dies is run once more. Returns the failures of trials that stay open, by name: without them what depends on their
    results is not proposed, and after several in a row nothing is. Raises `KeyboardInterrupt` if the run was
    interrupted, and `NotShared` if a machine does not see the study's folder.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    proposals = ProposalSearcher(search, team, whole=alone_on_device(gpus))
    tuner = Tuner(
        tune.with_resources(trainable, {"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}),
        tune_config=TuneConfig(
            search_alg=proposals,
            num_samples=4 * search.trials * len(search.labels),  # a spoilt, a lost worker, a full device: again
            max_concurrent_trials=at_once,
            reuse_actors=team is None,  # an actor with a trainer hangs when it is stopped, and has no model to keep
        ),
        run_config=RunConfig(
            name=f"search-{time.time_ns()}",
            storage_path=str(logs),
            verbose=0,
            callbacks=[_Shown(proposals, tell), *trackers],
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    # Tune prints boxes and hints even at verbosity 0, and would go on to take Ctrl-C and SIGUSR1 for itself
    with contextlib.redirect_stdout(io.StringIO()), signals.kept():
        results = tuner.fit()
    for result in map(results.__getitem__, range(len(results))):
        lines = [line for line in str(result.error or "").splitlines() if line.strip()]
        if lines and NotShared.__name__ in lines[-1]:
            raise NotShared(lines[-1])
    if search.missing() and not (proposals.open and proposals.finished):
        raise KeyboardInterrupt  # Tune turns the first Ctrl-C into an early but normal return
    return dict(proposals.open.values())
