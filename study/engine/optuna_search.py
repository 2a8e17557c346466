"""Searches whose proposals Optuna draws from the results of earlier ones, all of them stored on disk.

The folder is the memory: a proposal is on disk before it runs, and Optuna's studies can be rebuilt from it at any time.
Proposal n depends only on the results of proposals up to n - lookahead, so a search is the same whatever the number of
workers, the order in which jobs end, and how often the study was killed.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import optuna
from optuna.samplers import PartialFixedSampler
from optuna.study import StudyDirection
from optuna.trial import BaseTrial as BaseTrial  # rooms that may not import Optuna name it in annotations
from optuna.trial import FixedTrial, TrialState, create_trial

from study.core.hashing import Json, content_key
from study.core.records import Proposal, read_record, write_record
from study.core.terms import SamplerName
from study.engine import samplers


class Keyed(Protocol):
    """A job that is identified by its content: equal keys run once."""

    @property
    def key(self) -> str:
        """The key of the job's content."""
        ...


J = TypeVar("J", bound=Keyed)
P = TypeVar("P", bound=Proposal)


class Told(NamedTuple):
    """What a sampler learns of a job."""

    values: Mapping[str, float]
    """The objectives by name."""
    violation: float | None = None
    """By how much it misses what is demanded of it: infeasible above 0; None where nothing is demanded."""


class SearchProblem(ABC, Generic[J, P]):
    """Several searches that run side by side, each with a label."""

    trials: int
    """Proposals for each label."""
    seed: int
    lookahead: int
    """The number of a label's proposals that may be open at once."""
    sampler: SamplerName
    """How proposals are drawn."""
    startup_trials: int
    """The number of proposals of a label and group before the sampler models results."""

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
    def execute(self, job: J, label: str, number: int, waited: float) -> dict[str, Any]:
        """Run the job of a proposal in a worker that was idle for `waited` seconds; returns what to show."""

    @abstractmethod
    def record_failure(self, job: J, reason: str) -> None:
        """Record that a job failed because its device has too little memory for it, which is its result."""

    @abstractmethod
    def describe(self, label: str, number: int, job: J) -> str:
        """The name of a proposal on the screen."""

    @abstractmethod
    def metadata(self, label: str, job: J, number: int) -> dict[str, Json]:
        """Further entries of a proposal's file: the further fields of `proposal_type`."""

    # ---- what a search may do otherwise ------------------------------------------------------------------------------
    def group(self, label: str, number: int) -> Hashable:
        """Proposals of one label and group are modelled together, those of another group apart."""
        return None

    def told(self, job: J) -> Told | None:
        """What the sampler learns of a job that has ended, or None if nothing can be learned."""
        values = self.outcome(job)
        return None if values is None else Told(values)

    def exhausted(self, label: str, number: int) -> bool:
        """Whether what a label's proposals cost, up to `number` - lookahead, has used up a budget."""
        return False

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
        """The number of jobs that are still to be run; at most, where a budget may end a search before."""
        return sum(self._missing(label) for label in self.labels)

    def _missing(self, label: str) -> int:
        made = len(self.proposals(label)[: self.trials])
        planned = made if made < self.trials and self.exhausted(label, made) else self.trials
        return planned - len(self.ended(label))

    def cut(self) -> int:
        """The number of proposals that a budget left out of a search that has ended."""
        return sum(self.trials - len(self.proposals(label)[: self.trials]) for label in self.labels)

    def outcomes(self, label: str) -> dict[J, Mapping[str, float]]:
        """The successful jobs of a label with their objectives."""
        found = {job: self.outcome(job) for job in self.ended(label)}
        return {job: outcome for job, outcome in found.items() if outcome is not None}


def _outdated(label: str, proposal: Proposal, why: str) -> ValueError:
    return ValueError(
        f"proposal {proposal.number} of {label} was made by another version of the code: {why.rstrip('.')}. "
        "Choose another --study-dir"
    )


@dataclass
class _Group:
    """The Optuna study of one label and group, in memory, and what it has been told."""

    study: optuna.Study
    storage: optuna.storages.BaseStorage
    numbers: list[int] = field(default_factory=list)
    """The proposals that are its trials, in order."""
    told: set[int] = field(default_factory=set)
    """Those whose results it knows."""
    names: dict[str, None] = field(default_factory=dict)
    """The parameters that were asked for, in order."""
    drawn: int = 0
    """The number of those proposals that were drawn rather than given."""


class Proposer(Generic[J, P]):
    """Draws the proposals of a search. Each result is read once and each of Optuna's studies built once."""

    def __init__(self, search: SearchProblem[J, P]) -> None:
        self.search = search
        self._groups: dict[tuple[str, Hashable], _Group] = {}

    def propose(self, label: str, number: int) -> P:
        """Proposal `number` of a label: drawn by Optuna and stored, unless it is on disk already."""
        if there := self.search.proposal(label, number):
            return there
        search, group = self.search, self._updated(label, number)
        fixed, start = dict(search.fixed_params(label, number)), search.initial_params(label, number)
        key = content_key([search.seed, label, number])
        sequence = content_key([search.seed, label, str(search.group(label, number))])
        with _quiet():
            model = samplers.model_for(search.sampler, len(group.numbers), search.startup_trials)
            names = [name for name in group.names if name not in fixed]
            sampler = samplers.build(model, int(key, 16) % 2**32, int(sequence, 16) % 2**32, group.drawn, names)
            group.study.sampler = PartialFixedSampler(fixed, sampler)
            if start is not None:
                group.study.enqueue_trial(dict(start))
            asked = group.study.ask()
            job = search.build_job(label, asked)
        more = search.metadata(label, job, number)
        proposal = search.proposal_type(number=number, params=asked.params, trial=job.key, **more)
        write_record(search.path(label, number), proposal)
        self._added(group, label, proposal)
        return proposal

    def study(self, label: str, number: int) -> optuna.Study:
        """Optuna's study as it is when a proposal is drawn: earlier ones complete, failed, or still running."""
        return self._updated(label, number).study

    def _group(self, label: str, number: int) -> _Group:
        key = (label, self.search.group(label, number))
        if key not in self._groups:
            directions = [StudyDirection[d.upper()] for d in self.search.directions.values()]
            storage = optuna.storages.InMemoryStorage()  # in which trials are known by their place
            self._groups[key] = _Group(optuna.create_study(storage=storage, directions=directions), storage)
        return self._groups[key]

    def _updated(self, label: str, number: int) -> _Group:
        """The Optuna study that knows of the proposals before `number`, and what is known of them by then."""
        group = self._group(label, number)
        mine = [n for n in range(number) if self.search.group(label, n) == self.search.group(label, number)]
        for n in mine[len(group.numbers) :]:
            proposal = self.search.proposal(label, n)
            assert proposal is not None, f"proposal {n} of {label} is missing"
            replay = FixedTrial(dict(proposal.params))
            self.search.build_job(label, replay)
            group.study.add_trial(
                create_trial(state=TrialState.RUNNING, params=replay.params, distributions=replay.distributions)
            )
            self._added(group, label, proposal)
        for place, n in enumerate(group.numbers):
            if n <= number - self.search.lookahead and n not in group.told:
                self._tell(group, label, place, n)
        return group

    def _added(self, group: _Group, label: str, proposal: P) -> None:
        place = len(group.numbers)
        for name, value in samplers.attributes(place).items():
            group.storage.set_trial_system_attr(place, name, value)
        group.numbers.append(proposal.number)
        group.names |= dict.fromkeys(sorted(proposal.params))  # a file has them in this order
        group.drawn += self.search.initial_params(label, proposal.number) is None

    def _tell(self, group: _Group, label: str, place: int, number: int) -> None:
        """Tell Optuna how a trial ended: until then it is still running, which samplers take into account."""
        proposal = self.search.proposal(label, number)
        assert proposal is not None
        found = self.search.told(self.search.job(label, proposal.params))
        group.told.add(number)
        if found is None:
            group.study.tell(place, state=TrialState.FAIL)
            return
        if found.violation is not None:
            optuna.Trial(group.study, place).set_constraint("demand", found.violation)
        group.study.tell(place, [found.values[name] for name in self.search.directions])


def propose(search: SearchProblem[J, P], label: str, number: int) -> P:
    """One proposal, as `Proposer` draws it; whoever draws many keeps a proposer."""
    return Proposer(search).propose(label, number)


def _quiet() -> warnings.catch_warnings[None]:
    """Without the warning that what is used of Optuna is experimental."""
    return warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning)
