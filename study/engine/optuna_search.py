"""Searches whose proposals Optuna draws from the results of earlier ones, all of them stored on disk.

The folder is the memory: a proposal is on disk before it runs, and the sampler is rebuilt from disk for each of them.
Proposal n depends only on the results of proposals up to n - lookahead, so a search is the same whatever the number of
workers, the order in which jobs end, and how often the study was killed.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import optuna
from optuna.samplers import PartialFixedSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import BaseTrial as BaseTrial  # rooms that may not import Optuna name it in annotations
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from study.core.hashing import Json, content_key
from study.core.records import Proposal, read_record, write_record


class Keyed(Protocol):
    """A job that is identified by its content: equal keys run once."""

    @property
    def key(self) -> str:
        """The key of the job's content."""
        ...


J = TypeVar("J", bound=Keyed)
P = TypeVar("P", bound=Proposal)


class SearchProblem(ABC, Generic[J, P]):
    """Several searches that run side by side, each with a label."""

    trials: int
    """Proposals for each label."""
    seed: int
    lookahead: int
    """The number of a label's proposals that may be open at once."""
    random_trials: int
    """The number of a label's proposals before the sampler models results."""

    @property
    @abstractmethod
    def proposal_type(self) -> type[P]:
        """The record of a proposal."""

    @property
    @abstractmethod
    def labels(self) -> Sequence[str]:
        """The label of each search."""

    @property
    @abstractmethod
    def directions(self) -> Mapping[str, str]:
        """The objectives with `minimize` or `maximize`."""

    @abstractmethod
    def path(self, label: str, number: int) -> Path:
        """The file of a proposal."""

    @abstractmethod
    def build_job(self, label: str, trial: BaseTrial) -> J:
        """The job with the parameters that an Optuna trial suggests, or to which it was fixed."""

    @abstractmethod
    def fixed_params(self, label: str, number: int) -> Mapping[str, Any]:
        """Parameters that the sampler does not choose."""

    @abstractmethod
    def initial_params(self, label: str, number: int) -> Mapping[str, Any] | None:
        """The parameters of a proposal that is given in advance, such as a default; None if the sampler draws it."""

    @abstractmethod
    def is_done(self, job: J) -> bool:
        """Whether a job has ended, one way or another."""

    @abstractmethod
    def outcome(self, job: J) -> Mapping[str, float] | None:
        """The objectives of a job by name, or None if it is unfinished or failed."""

    @abstractmethod
    def execute(self, job: J, waited: float) -> dict[str, Any]:
        """Run a job in a worker that was idle for `waited` seconds; returns what to show on the screen."""

    @abstractmethod
    def record_failure(self, job: J, reason: str) -> None:
        """Record that a job failed because its worker died twice."""

    @abstractmethod
    def describe(self, label: str, number: int, job: J) -> str:
        """The name of a proposal on the screen."""

    @abstractmethod
    def metadata(self, label: str, job: J, number: int) -> dict[str, Json]:
        """Further entries of a proposal's file: the further fields of `proposal_type`."""

    # ---- derived from these ----------------------------------------------------------------------------------------
    def job(self, label: str, params: Mapping[str, Any]) -> J:
        """The job with given parameters."""
        return self.build_job(label, FixedTrial(dict(params)))

    def replay(self, label: str, proposal: P) -> J:
        """The job of a proposal on disk. Raises `ValueError` if today's code derives another job from it."""
        try:
            job = self.job(label, proposal.params)
        except ValueError as error:  # a space that asks for more now, or no longer has a choice
            raise _outdated(label, proposal, str(error)) from error
        if job.key != proposal.trial:
            raise _outdated(label, proposal, f"its parameters now give trial {job.key}, not {proposal.trial}")
        return job

    def proposal(self, label: str, number: int) -> P | None:
        """A proposal, if it has been made."""
        path = self.path(label, number)
        return read_record(self.proposal_type, path) if path.exists() else None

    def proposals(self, label: str) -> list[P]:
        """All proposals so far, in order."""
        found: list[P] = []
        while proposal := self.proposal(label, len(found)):
            found.append(proposal)
        return found

    def ended(self, label: str) -> list[J]:
        """The jobs of a label, in the order in which they were proposed, that have ended."""
        proposed = [self.replay(label, proposal) for proposal in self.proposals(label)[: self.trials]]
        return [job for job in proposed if self.is_done(job)]

    def missing(self) -> int:
        """The number of jobs that are still to be run."""
        return sum(self.trials - len(self.ended(label)) for label in self.labels)

    def outcomes(self, label: str) -> dict[J, Mapping[str, float]]:
        """The successful jobs of a label with their objectives."""
        found = {job: self.outcome(job) for job in self.ended(label)}
        return {job: outcome for job, outcome in found.items() if outcome is not None}


def _outdated(label: str, proposal: Proposal, why: str) -> ValueError:
    return ValueError(
        f"proposal {proposal.number} of {label} was made by another version of the code: {why.rstrip('.')}. "
        "Choose another --study-dir"
    )


def propose(series: SearchProblem[J, P], label: str, number: int) -> P:
    """Proposal `number` of a label: drawn by Optuna and stored, unless it is on disk already."""
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
    """An earlier proposal as Optuna sees it: complete, failed, or still running (handled by the constant liar)."""
    replay = FixedTrial(dict(params))
    job = series.build_job(label, replay)
    outcome = series.outcome(job) if known else None
    state = TrialState.RUNNING if not known else TrialState.FAIL if outcome is None else TrialState.COMPLETE
    return create_trial(
        state=state,
        params=replay.params,
        distributions=replay.distributions,
        values=None if outcome is None else [outcome[name] for name in series.directions],
    )
