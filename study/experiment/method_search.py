"""The search of methods: its proposals, the results of their trials, and which trials end early."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from study.contracts import Attack, Method
from study.core.hashing import Json, content_key
from study.core.plugins import search_space
from study.core.records import MethodProposal, Observation, RungScore, TrialState
from study.core.rows import read_rows
from study.core.specs import name_in, parameters, pinned
from study.core.terms import EarlyStopping, Goal, Keep, SamplerName
from study.engine.choices import without
from study.engine.optuna_search import BaseTrial, Prior, SearchProblem, Told
from study.experiment.attack import attack_state, too_small, try_attack
from study.experiment.budget import NO_LIMIT, Budget, existing_costs
from study.experiment.context import StudyContext
from study.experiment.dropping import beaten, drop_weights
from study.experiment.duration import timed
from study.experiment.records import existing_record, existing_records
from study.experiment.rungs import Ending, Rungs, values_at
from study.experiment.trial import EARLY, judged, run
from study.experiment.trial_spec import RATIO, Params, Trial
from study.metrics.halving import survives
from study.metrics.objectives import BROKEN, DIRECTIONS, ROBUST_DIRECTIONS, as_collapsed
from study.metrics.recovery import objective


@dataclass(frozen=True)
class MethodSearch(SearchProblem[Trial, MethodProposal]):
    """The search of methods: a default for each to start from, and the baselines of each ratio."""

    context: StudyContext
    defaults: Mapping[str, Method]
    """By what the study calls each method."""
    trials: int
    ratios: tuple[int, ...]
    baselines: Mapping[int, Sequence[Trial]]
    """Vanilla, which every trial starts from, then the references, by ratio; the first reference is the control."""
    goal: Goal
    seed: int
    lookahead: int
    sampler: SamplerName = "auto"
    startup_trials: int = 0
    early_stopping: EarlyStopping = "pareto"
    floor: float = BROKEN
    """The utility below which a trial has collapsed."""
    budget: Budget = NO_LIMIT
    """What each method may cost."""
    race: int = 1
    """The number of trials of a ratio, the best by one seed, of which one may still win."""
    attacker: Attack | None = None
    """The attack on every trial, whose recovery is the third objective; None for a search without it."""
    keeps: float = 0.0
    """Minimum fraction of the retain accuracy that the attack must leave for its result to count."""
    warm: Mapping[str, Mapping[int, Params]] = field(default_factory=dict)
    """Parameters that won in an earlier study, by method and ratio; a method without any starts cold."""
    earlier: Mapping[str, Mapping[int, Sequence[Observation]]] = field(default_factory=dict)
    """Finished trials of an earlier study, by method and ratio."""
    unsupported: Mapping[str, Mapping[str, Collection[str]]] = field(default_factory=dict)
    """Choices that cannot be done on this benchmark, by method and hyper-parameter: they are not proposed."""
    keep: Keep = "all"
    """Whether the weights of trials that can no longer win are deleted."""

    def __getstate__(self) -> dict[str, Any]:
        """Without what only proposals need: every trial takes its search along to a worker."""
        return {**vars(self), "earlier": {}}

    @property
    def proposal_type(self) -> type[MethodProposal]:
        """A trial of a method."""
        return MethodProposal

    @property
    def labels(self) -> tuple[str, ...]:
        """The methods."""
        return tuple(self.defaults)

    @property
    def directions(self) -> Mapping[str, str]:
        """Those of the two objectives, or of three if every trial is attacked."""
        return ROBUST_DIRECTIONS if self.attacker else DIRECTIONS

    def path(self, label: str, number: int) -> Path:
        """Below the method's name."""
        return self.context.folder.proposal(label, number)

    def build_job(self, label: str, trial: BaseTrial) -> Trial:
        """A trial of the method at a ratio, in steps over the lessons that it forgets."""
        ratio = int(trial.suggest_categorical(RATIO, self.ratios))
        offered = without(trial, self.unsupported.get(label, {}))
        proposed = search_space(name_in(label)).space(offered, self.defaults[label])
        return timed(self.context, Trial(self.baselines[ratio][0].start, proposed, self.goal, ratio, self.seed, label))

    def fixed_params(self, label: str, number: int) -> Mapping[str, Any]:
        """The ratio, since proposals alternate between ratios, and what was fixed on the command line."""
        return {RATIO: self._ratio(number), **pinned(self.defaults[label], label)}

    def initial_params(self, label: str, number: int) -> Mapping[str, Any] | None:
        """The first proposal at each ratio is the default, so that a report can show the gain from tuning; the second
        is the winner of an earlier study, with a warm start."""
        start = {RATIO: self._ratio(number), **parameters(self.defaults[label])}
        warm = self._warm(label, number)
        return {**start, **warm} if warm or number < len(self.ratios) else None

    def default(self, label: str, ratio: int) -> Trial:
        """The trial of the preset's default, which the search of a ratio begins with."""
        start = self.initial_params(label, self.ratios.index(ratio))
        assert start is not None, "the first proposal of a ratio is given"
        return self.job(label, start)

    def group(self, label: str, number: int) -> int:
        """Each ratio is modelled by itself: what is good at one says little about another."""
        return self._ratio(number)

    def priors(self, label: str, number: int) -> Sequence[Prior]:
        """What the earlier study found at this ratio; nothing where it lacks an objective of this one."""
        ratio = self._ratio(number)
        return [
            Prior({RATIO: ratio, **one.params}, Told(one.values, self.floor - one.values["utility"]))
            for one in self.earlier.get(label, {}).get(ratio, ())
            if self.directions.keys() <= one.values.keys()
        ]

    def metadata(self, label: str, job: Trial, number: int) -> dict[str, Json]:
        """The ratio, and whether it is the default, or what won in an earlier study."""
        warm = {"warm": True} if self._warm(label, number) else {}
        return {"ratio": job.ratio, "default": number < len(self.ratios), **warm}

    def is_done(self, job: Trial) -> bool:
        """Whether the trial has its record and, if it ended well, has met the search attack.

        One that ended at a rung is to be run again if searches no longer end trials like that.
        """
        state = self._state(job)
        if state in EARLY:
            return state in self._ends
        if state != "complete" or self.attacker is None:
            return state != "unfinished"
        return attack_state(self.context.folder, job, self.attacker) != "unfinished"

    def outcome(self, job: Trial) -> Mapping[str, float] | None:
        """The objectives of a trial, or nothing if it is unfinished, failed or diverged, or its attack is."""
        if self._state(job) != "complete":
            return None
        values = judged(self.context, job, self.baselines[job.ratio])
        if self.attacker is None:
            return values
        recovery = self._recovery(job, self.attacker, values["utility"])
        return None if math.isnan(recovery) else {**values, "recovery": recovery}

    def told(self, job: Trial) -> Told | None:
        """The objectives, and by how much utility misses the floor; of a trial that ended at a rung those it had there.

        Nothing is told of a trial that was stopped: it is neither as good as it looked early on nor as it would have
        become.
        """
        values = self.outcome(job)
        if values is None and (record := existing_record(self.context.folder, job)) and record.state == "collapsed":
            values = as_collapsed(record.rungs[-1].objectives, robust=self.attacker is not None)
        return None if values is None else Told(values, self.floor - values["utility"])

    def exhausted(self, label: str, number: int) -> bool:
        """Whether the trials up to `number` - lookahead have used up the budget of a method."""
        if not self.budget or number < len(self.ratios):  # each ratio has its default at least
            return False
        keys = {p.trial for n in range(number - self.lookahead + 1) if (p := self.proposal(label, n))}
        attack = content_key(self.attacker) if self.attacker else None
        return self.budget.used_up(existing_costs(self.context.folder, sorted(keys), attack))

    def execute(self, job: Trial, label: str, number: int, waited: float) -> dict[str, Any]:
        """Run the trial and attack what it leaves; a trial that is on disk is only attacked."""
        told = self._execute(job, waited, self._rungs(job, label, number))
        if self.keep == "winners":
            self._drop(job)
        return told

    def execute_given(self, job: Trial) -> None:
        """Run and attack a trial that was not proposed, such as one with a further seed: it does not end early."""
        self._execute(job, 0.0, None)

    def _execute(self, job: Trial, waited: float, rungs: Rungs | None) -> dict[str, Any]:
        reference = self._control(job).start.key
        record = run(self.context, job, reference, waited=waited, rungs=rungs)
        state: str = record.state
        if state == "complete" and self.attacker:
            reason = try_attack(self.context, job, self.attacker, reference)
            state = f"the attack failed: {reason}" if reason else state
        return {"state": state, **(self.outcome(job) or {})}

    def record_failure(self, job: Trial, reason: str) -> None:
        """A failed trial, or a failed attack on one that had ended well."""
        too_small(self.context.folder, job, self.attacker, reason)

    def describe(self, label: str, number: int, job: Trial) -> str:
        """The method, the number and the ratio."""
        return f"{label} {number + 1} of {self.trials}, ratio {job.ratio} %"

    @property
    def _ends(self) -> tuple[TrialState, ...]:
        """How trials may end at a rung. What an attack brings back is not known there, and may be what a trial is
        ahead in: of three objectives two decide nothing."""
        stops = self.early_stopping == "pareto" and self.attacker is None
        return () if self.early_stopping == "off" else ("collapsed", "stopped") if stops else ("collapsed",)

    def _rungs(self, job: Trial, label: str, number: int) -> Rungs | None:
        """What happens to a trial at its rungs; one that was given, such as the default, is only scored there."""
        if self.early_stopping == "off":
            return None
        drawn = self.initial_params(label, number) is None
        decide = partial(self._ending, label, number) if drawn else _go_on
        return Rungs(self.baselines[job.ratio], decide, self._ends)

    def _ending(self, label: str, number: int, score: RungScore) -> Ending | None:
        """Whether a drawn trial ends at a rung: it has collapsed, or is behind those that it may know of."""
        if score.utility < self.floor:
            return Ending(
                "collapsed",
                f"after {score.step} steps its utility is {score.utility:.2f}, below the floor of {self.floor:g}",
            )
        if "stopped" not in self._ends or survives(
            score.objectives, self._peers(label, number, score.rung), score.rung
        ):
            return None
        return Ending("stopped", f"after {score.step} steps it is behind earlier trials (rung {score.rung})")

    def _peers(self, label: str, number: int, rung: int) -> list[Mapping[str, float]]:
        """What the proposals of the same ratio that this one may know of scored at a rung."""
        known = [
            proposal
            for n in range(number - self.lookahead + 1)
            if self.group(label, n) == self.group(label, number) and (proposal := self.proposal(label, n))
        ]
        keys = dict.fromkeys(proposal.trial for proposal in known)
        return [found for record in existing_records(self.context.folder, keys) if (found := values_at(record, rung))]

    def _drop(self, job: Trial) -> None:
        """Delete the weights of this trial if it ended badly, and of those of its method and ratio that are beaten.

        What has lost its weights was beaten by others that have theirs, so nothing else needs to be looked at.
        """
        there = [p for p in self.proposals(job.name) if p.ratio == job.ratio and self._has_weights(p.trial)]
        ended = {t: values for p in there if (values := self.outcome(t := self.job(job.name, p.params))) is not None}
        for lost in [*beaten(ended, self.default(job.name, job.ratio), self.race), *({job} - ended.keys())]:
            drop_weights(self.context.folder, lost.key)

    def _has_weights(self, key: str) -> bool:
        return self.context.folder.delta(key).exists()

    def _control(self, job: Trial) -> Trial:
        return self.baselines[job.ratio][1]

    def _state(self, job: Trial) -> TrialState | Literal["unfinished"]:
        record = existing_record(self.context.folder, job)
        return record.state if record else "unfinished"

    def _recovery(self, job: Trial, attacker: Attack, utility: float) -> float:
        """The recovery under the attack, or NaN where it failed or measured nothing."""
        if attack_state(self.context.folder, job, attacker) != "complete":
            return math.nan
        paths = (self.context.folder.attack(t.key, content_key(attacker)) for t in (job, self._control(job)))
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


def _go_on(score: RungScore) -> None:
    """Nothing ends."""
