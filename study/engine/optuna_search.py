"""Searches whose proposals Optuna draws from the results of earlier ones, all of them stored on disk.

The folder is the memory: a proposal is on disk before it runs, and Optuna's studies can be rebuilt from it at any time.
Proposal n depends only on the results of proposals up to n - lookahead, so a search is the same whatever the number of
workers, the order in which jobs end, and how often the study was killed.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import optuna
from optuna.samplers import PartialFixedSampler
from optuna.study import StudyDirection
from optuna.trial import BaseTrial as BaseTrial  # rooms that may not import Optuna name it in annotations
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from study.core.hashing import Json, Keyed, content_key
from study.core.records import Proposal, existing, write_record
from study.core.sampling import model_for
from study.core.terms import SamplerName
from study.engine import samplers
from study.engine.priors import kept, weighed_after

J = TypeVar("J", bound=Keyed)
P = TypeVar("P", bound=Proposal)


class Told(NamedTuple):
    """What a sampler learns of a job."""

    values: Mapping[str, float]
    """The objectives by name."""
    violation: float | None = None
    """By how much it misses what is demanded of it: infeasible above 0; None where nothing is demanded."""


class Prior(NamedTuple):
    """A finished trial of an earlier search, as this one could have proposed it."""

    params: Mapping[str, Any]
    told: Told


DEMAND = "demand"
"""The name of the constraint that `Told.violation` is the value of."""


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

    def priors(self, label: str, number: int) -> Sequence[Prior]:
        """Finished trials of an earlier search, of which the sampler is told as many as they predict this one."""
        return ()

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
        return existing(self.proposal_type, self.path(label, number))

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
        return sum(self._planned(label) - len(self.ended(label)) for label in self.labels)

    def cut(self) -> int:
        """The number of proposals that a budget has left out so far."""
        return sum(self.trials - self._planned(label) for label in self.labels)

    def _planned(self, label: str) -> int:
        """How many proposals a label has in the end, as far as is known: no more where its budget is used up."""
        made = len(self.proposals(label)[: self.trials])
        return made if made < self.trials and self.exhausted(label, made) else self.trials

    def outcomes(self, label: str) -> dict[J, Mapping[str, float]]:
        """The successful jobs of a label with their objectives."""
        found = {job: self.outcome(job) for job in self.ended(label)}
        return {job: outcome for job, outcome in found.items() if outcome is not None}


def _outdated(label: str, proposal: Proposal, why: str) -> ValueError:
    return ValueError(
        f"proposal {proposal.number} of {label} was made by another version of the code: {why.rstrip('.')}. "
        "Choose another --study-dir"
    )


class Group:
    """The Optuna study of one label and group, in memory, and what it has been told."""

    def __init__(self, directions: Iterable[str], priors: Sequence[FrozenTrial] = ()) -> None:
        self.storage = optuna.storages.InMemoryStorage()  # in which trials are known by their place
        named = [StudyDirection[direction.upper()] for direction in directions]
        self.study = optuna.create_study(storage=self.storage, directions=named)
        self.priors = list(priors)
        """Its first trials, which are those of an earlier search."""
        self.weighed = 0
        """The number of proposals after which these were chosen."""
        self.numbers: list[int] = []
        """The proposals that are its further trials, in order."""
        self.told = 0
        """The number of those, from the first, whose results it knows."""
        self.names: dict[str, None] = {}
        """The parameters that were asked for, in order."""
        self.drawn = 0
        """The number of those proposals that were drawn rather than given."""
        for place, prior in enumerate(self.priors):
            self._add(prior, place)

    @property
    def own(self) -> list[FrozenTrial]:
        """The trials of the search itself, in order."""
        return self.study.get_trials(deepcopy=False)[len(self.priors) :]

    def add(self, trial: FrozenTrial) -> None:
        """Add the trial of the next proposal."""
        self._add(trial, len(self.priors) + len(self.numbers))

    def note(self, proposal: Proposal, *, drawn: bool) -> None:
        """Note the proposal of the trial that was added last."""
        self.numbers.append(proposal.number)
        self.names |= dict.fromkeys(sorted(proposal.params))  # a file has them in this order
        self.drawn += drawn

    def with_priors(self, priors: Sequence[FrozenTrial], directions: Iterable[str]) -> Group:
        """The same group after other trials of an earlier search."""
        other = Group(directions, priors)
        for trial, number in zip(self.own, self.numbers, strict=True):
            other.add(trial)
            other.numbers.append(number)
        other.told, other.names, other.drawn = self.told, self.names, self.drawn
        return other

    def _add(self, trial: FrozenTrial, place: int) -> None:
        attributes = {**trial.system_attrs, **samplers.attributes(place)}
        self.study.add_trial(
            create_trial(
                state=trial.state,
                values=trial.values,
                params=trial.params,
                distributions=trial.distributions,
                system_attrs=attributes,
            )
        )


class Proposer(Generic[J, P]):
    """Draws the proposals of a search.

    Each result is read once, and each of Optuna's studies built once, or anew when other trials of an earlier search
    are to be told.
    """

    def __init__(self, search: SearchProblem[J, P]) -> None:
        self.search = search
        self._groups: dict[tuple[str, Hashable], Group] = {}
        self._numbers: dict[tuple[str, Hashable], list[int]] = {}
        """The numbers of the proposals of each label and group, as far as they were asked for."""
        self._asked: dict[str, int] = {}
        """The number of proposals of each label that are among these."""

    def propose(self, label: str, number: int) -> P:
        """Proposal `number` of a label: drawn by Optuna and stored, unless it is on disk already."""
        if there := self.search.proposal(label, number):
            return there
        search, group = self.search, self.group(label, number)
        fixed, start = dict(search.fixed_params(label, number)), search.initial_params(label, number)
        key = content_key([search.seed, label, number])
        sequence = content_key([search.seed, label, str(search.group(label, number))])
        with _quiet():
            model = model_for(search.sampler, len(group.numbers), search.startup_trials, len(group.priors))
            names = [name for name in group.names if name not in fixed]
            sampler = samplers.build(model, int(key, 16) % 2**32, int(sequence, 16) % 2**32, group.drawn, names)
            group.study.sampler = PartialFixedSampler(fixed, sampler)
            if start is not None:
                group.study.enqueue_trial(dict(start))
            asked = group.study.ask()
            job = search.build_job(label, asked)
        for name, value in samplers.attributes(asked.number).items():
            group.storage.set_trial_system_attr(asked.number, name, value)
        more = search.metadata(label, job, number)
        if group.priors and start is None and model not in ("sobol", "random"):
            more["priors"] = len(group.priors)
        proposal = search.proposal_type(number=number, params=asked.params, trial=job.key, **more)
        write_record(search.path(label, number), proposal)
        group.note(proposal, drawn=start is None)
        return proposal

    def group(self, label: str, number: int) -> Group:
        """What is known when a proposal is drawn: earlier ones of its group are complete, failed, or still running."""
        search, key, earlier = self.search, (label, self.search.group(label, number)), self._earlier(label, number)
        if key not in self._groups:
            self._groups[key] = Group(search.directions.values())
        group = self._groups[key]
        for n in earlier[len(group.numbers) :]:
            proposal = search.proposal(label, n)
            assert proposal is not None, f"proposal {n} of {label} is missing"
            group.add(self._trial(label, proposal.params, TrialState.RUNNING))
            group.note(proposal, drawn=search.initial_params(label, n) is None)
        while group.told < len(earlier) and earlier[group.told] <= number - search.lookahead:
            self._tell(group, label)
        if (count := weighed_after(len(earlier))) != group.weighed:
            group = self._groups[key] = self._weighed(group, label, count, [*earlier, number][count])
        return group

    def _earlier(self, label: str, number: int) -> list[int]:
        """The numbers below `number` of its group."""
        for n in range(self._asked.get(label, 0), number + 1):
            self._numbers.setdefault((label, self.search.group(label, n)), []).append(n)
        self._asked[label] = max(self._asked.get(label, 0), number + 1)
        mine = self._numbers[label, self.search.group(label, number)]
        return mine[: bisect_left(mine, number)]

    def _trial(self, label: str, params: Mapping[str, Any], state: TrialState, **known: Any) -> FrozenTrial:
        """A trial with some parameters, as Optuna has it."""
        replay = FixedTrial(dict(params))
        self.search.build_job(label, replay)
        return create_trial(state=state, params=replay.params, distributions=replay.distributions, **known)

    def _tell(self, group: Group, label: str) -> None:
        """Tell Optuna how the next trial ended: until then it is still running, which samplers take into account."""
        place = len(group.priors) + group.told
        proposal = self.search.proposal(label, group.numbers[group.told])
        assert proposal is not None
        found = self.search.told(self.search.job(label, proposal.params))
        group.told += 1
        if found is None:
            group.study.tell(place, state=TrialState.FAIL)
            return
        if found.violation is not None:
            optuna.Trial(group.study, place).set_constraint(DEMAND, found.violation)
        group.study.tell(place, [found.values[name] for name in self.search.directions])

    def _weighed(self, group: Group, label: str, count: int, number: int) -> Group:
        """The group with as many trials of an earlier search as predict what was known when proposal `number` was
        drawn, the first after `count` of its group: so it is the same whenever it is asked for."""
        known = [
            trial
            for n, trial in zip(group.numbers[:count], group.own, strict=False)
            if n <= number - self.search.lookahead and trial.state == TrialState.COMPLETE
        ]
        chosen = kept(self._priors(label, number), known)
        if len(chosen) != len(group.priors):  # as many are the same ones
            group = group.with_priors(chosen, self.search.directions.values())
        group.weighed = count
        return group

    def _priors(self, label: str, number: int) -> list[FrozenTrial]:
        """Finished trials of an earlier search as Optuna has them, without those that this one could not propose."""
        found = []
        for params, told in self.search.priors(label, number):
            values = [told.values[name] for name in self.search.directions]
            demanded = {} if told.violation is None else {DEMAND: told.violation}
            with suppress(ValueError):
                found.append(self._trial(label, params, TrialState.COMPLETE, values=values, constraints=demanded))
        return found


def _quiet() -> warnings.catch_warnings[None]:
    """Without the warning that what is used of Optuna is experimental."""
    return warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning)
