"""Series of proposals, each drawn by Optuna from the results of the ones before, all of them written down.

The folder is the memory: a proposal is on disk before it runs, and the sampler is rebuilt from disk for every one of
them. Proposal n is drawn from the results of proposals up to n - lookahead alone, so a series is the same whatever the
number of workers, the order in which jobs end, or how often the study was killed.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import optuna
from optuna.samplers import PartialFixedSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import BaseTrial as BaseTrial  # rooms that may not import Optuna name it in annotations
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from study.core.hashing import Json, content_key
from study.core.records import Proposal, read_record, write_record


class Keyed(Protocol):
    """A job that is known by its content: equal keys run once."""

    @property
    def key(self) -> str:
        """The job by its content."""
        ...


J = TypeVar("J", bound=Keyed)
P = TypeVar("P", bound=Proposal)


class JobResult(NamedTuple):
    """What a job came to: its objectives by name, and how far it is beyond each bound (at most 0 is within)."""

    values: Mapping[str, float]
    beyond: Mapping[str, float] = {}


class SearchProblem(ABC, Generic[J, P]):
    """Several series, one a label, that are searched side by side."""

    trials: int
    """Proposals of each label."""
    seed: int
    lookahead: int
    """How many of a label's proposals may be open at once."""
    random_trials: int
    """How many of a label's proposals come before the sampler models the results."""

    @property
    @abstractmethod
    def proposal_type(self) -> type[P]:
        """The record of a proposal."""

    @property
    @abstractmethod
    def labels(self) -> Sequence[str]:
        """What each series is called."""

    @property
    @abstractmethod
    def directions(self) -> Mapping[str, str]:
        """The objectives with `minimize` or `maximize`."""

    @abstractmethod
    def path(self, label: str, number: int) -> Path:
        """Where a proposal is written down."""

    @abstractmethod
    def build_job(self, label: str, trial: BaseTrial) -> J:
        """The job that an Optuna trial stands for: what it suggests, or what it was fixed to."""

    @abstractmethod
    def fixed_params(self, label: str, number: int) -> Mapping[str, Any]:
        """Parameters that are not the sampler's to choose."""

    @abstractmethod
    def initial_params(self, label: str, number: int) -> Mapping[str, Any] | None:
        """The parameters of a proposal that is a default, or None if the sampler is to draw it."""

    @abstractmethod
    def is_done(self, job: J) -> bool:
        """Whether a job has ended, one way or another."""

    @abstractmethod
    def outcome(self, job: J) -> JobResult | None:
        """What a job came to, or nothing if it is unfinished or failed."""

    @abstractmethod
    def execute(self, job: J, waited: float) -> dict[str, Any]:
        """Run a job in a worker that was idle for `waited` seconds; returns what the screen is to tell."""

    @abstractmethod
    def record_failure(self, job: J, reason: str) -> None:
        """Write down that a job's worker died for good."""

    @abstractmethod
    def describe(self, label: str, number: int, job: J) -> str:
        """What a proposal is called on the screen."""

    @abstractmethod
    def metadata(self, label: str, job: J, number: int) -> dict[str, Json]:
        """What else is written down with a proposal: the further fields of `proposal_type`."""

    # ---- what follows from these -----------------------------------------------------------------------------------
    def job(self, label: str, params: Mapping[str, Any]) -> J:
        """The job of some parameters."""
        return self.build_job(label, FixedTrial(dict(params)))

    def replay(self, label: str, proposal: P) -> J:
        """The job of a proposal on disk. Raises `ValueError` if today's code makes another job of it."""
        job = self.job(label, proposal.params)
        if job.key != proposal.trial:
            raise ValueError(
                f"proposal {proposal.number} of {label} was made by other code: its parameters now give trial "
                f"{job.key}, not {proposal.trial}. Choose another --study-dir"
            )
        return job

    def proposal(self, label: str, number: int) -> P | None:
        """A proposal, if it has been made."""
        path = self.path(label, number)
        return read_record(self.proposal_type, path) if path.exists() else None

    def proposals(self, label: str) -> list[P]:
        """What has been proposed so far, in order."""
        found: list[P] = []
        while proposal := self.proposal(label, len(found)):
            found.append(proposal)
        return found

    def ended(self, label: str) -> list[J]:
        """The jobs of a label, in the order in which they were proposed, that have ended."""
        proposed = [self.replay(label, proposal) for proposal in self.proposals(label)[: self.trials]]
        return [job for job in proposed if self.is_done(job)]

    def missing(self) -> int:
        """How many jobs are still to be run."""
        return sum(self.trials - len(self.ended(label)) for label in self.labels)

    def outcomes(self, label: str) -> dict[J, JobResult]:
        """The jobs of a label that ended well, with what they came to."""
        found = {job: self.outcome(job) for job in self.ended(label)}
        return {job: outcome for job, outcome in found.items() if outcome is not None}


def propose(series: SearchProblem[J, P], label: str, number: int) -> P:
    """Proposal `number` of a label, drawn by Optuna and written down unless it was already."""
    if there := series.proposal(label, number):
        return there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = TPESampler(
            seed=int(content_key([series.seed, label, number]), 16) % 2**32,
            multivariate=True,
            constant_liar=True,
            n_startup_trials=series.random_trials,
        )
        study = optuna.create_study(
            directions=[StudyDirection[d.upper()] for d in series.directions.values()],
            sampler=PartialFixedSampler(dict(series.fixed_params(label, number)), sampler),
        )
    for n, earlier in enumerate(series.proposals(label)[:number]):
        study.add_trial(_told(series, label, earlier.params, known=n <= number - series.lookahead))
    start = series.initial_params(label, number)
    if start is not None:
        study.enqueue_trial(dict(start))
    asked = study.ask()
    job = series.build_job(label, asked)
    more = series.metadata(label, job, number)
    proposal = series.proposal_type(number=number, params=asked.params, trial=job.key, **more)
    write_record(series.path(label, number), proposal)
    return proposal


def _told(series: SearchProblem[J, P], label: str, params: Mapping[str, Any], *, known: bool) -> FrozenTrial:
    """An earlier proposal as Optuna should see it: complete, failed, or still running (the constant liar's case)."""
    replay = FixedTrial(dict(params))
    job = series.build_job(label, replay)
    outcome = series.outcome(job) if known else None
    state = TrialState.RUNNING if not known else TrialState.FAIL if outcome is None else TrialState.COMPLETE
    return create_trial(
        state=state,
        params=replay.params,
        distributions=replay.distributions,
        values=None if outcome is None else [outcome.values[name] for name in series.directions],
        constraints=None if outcome is None else dict(outcome.beyond),
    )
