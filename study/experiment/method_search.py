"""The search of methods: its proposals, and the results of their trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from study.contracts import Attack, Method
from study.core.hashing import Json, content_key
from study.core.plugins import search_space
from study.core.records import MethodProposal, TrialState
from study.core.rows import read_rows
from study.core.specs import name_in, parameters, pinned
from study.core.terms import Goal, Keep
from study.engine.optuna_search import BaseTrial, SearchProblem
from study.experiment.attack import attack_failed, attack_state, try_attack
from study.experiment.context import StudyContext
from study.experiment.dropping import beaten, drop_weights
from study.experiment.records import existing_record, keep_record
from study.experiment.trial import judged, run
from study.experiment.trial_spec import RATIO, Params, Trial
from study.metrics.objectives import DIRECTIONS, ROBUST_DIRECTIONS
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
    random_trials: int
    attacker: Attack | None = None
    """The attack on every trial, whose recovery is the third objective; None for a search without it."""
    keeps: float = 0.0
    """Minimum fraction of the retain accuracy that the attack must leave for its result to count."""
    warm: Mapping[str, Mapping[int, Params]] = field(default_factory=dict)
    """Parameters that won in an earlier study, by method and ratio; a method without any starts cold."""
    keep: Keep = "all"
    """Whether the weights of trials that can no longer win are deleted."""

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
        """A trial of the method at a ratio."""
        ratio = int(trial.suggest_categorical(RATIO, self.ratios))
        proposed = search_space(name_in(label)).space(trial, self.defaults[label])
        return Trial(self.baselines[ratio][0].start, proposed, self.goal, ratio, self.seed, label)

    def fixed_params(self, label: str, number: int) -> Mapping[str, Any]:
        """The ratio, since proposals alternate between ratios, and what was fixed on the command line."""
        return {RATIO: self._ratio(number), **pinned(self.defaults[label], label)}

    def initial_params(self, label: str, number: int) -> Mapping[str, Any] | None:
        """The first proposal at each ratio is the default, so that a report can show the gain from tuning; the second
        is the winner of an earlier study, with a warm start."""
        start = {RATIO: self._ratio(number), **parameters(self.defaults[label])}
        warm = self._warm(label, number)
        return {**start, **warm} if warm or number < len(self.ratios) else None

    def metadata(self, label: str, job: Trial, number: int) -> dict[str, Json]:
        """The ratio, and whether it is the default, or what won in an earlier study."""
        warm = {"warm": True} if self._warm(label, number) else {}
        return {"ratio": job.ratio, "default": number < len(self.ratios), **warm}

    def is_done(self, job: Trial) -> bool:
        """Whether the trial has its record and, if it ended well, has met the search attack."""
        if self._state(job) != "complete" or self.attacker is None:
            return self._state(job) != "unfinished"
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

    def execute(self, job: Trial, waited: float) -> dict[str, Any]:
        """Run the trial and attack what it leaves; a trial that is on disk is only attacked."""
        reference = self._control(job).start.key
        record = run(self.context, job, reference, waited=waited)
        state: str = record.state
        if state == "complete" and self.attacker:
            reason = try_attack(self.context, job, self.attacker, reference)
            state = f"the attack failed: {reason}" if reason else state
        if self.keep == "winners":
            self._drop(job)
        return {"state": state, **(self.outcome(job) or {})}

    def record_failure(self, job: Trial, reason: str) -> None:
        """A failed trial, or a failed attack on one that had ended well."""
        if self.attacker and self._state(job) == "complete":
            attack_failed(self.context.folder, job, self.attacker, reason)
        else:
            keep_record(self.context.folder, job, "failed", reason, cost={})

    def describe(self, label: str, number: int, job: Trial) -> str:
        """The method, the number and the ratio."""
        return f"{label} {number + 1} of {self.trials}, ratio {job.ratio} %"

    def _drop(self, job: Trial) -> None:
        """Delete the weights of this trial if it ended badly, and of those of its method and ratio that are beaten."""
        ended = {t: values for t, values in self.outcomes(job.name).items() if t.ratio == job.ratio}
        for lost in [*beaten(ended, self.defaults[job.name]), *({job} - ended.keys())]:
            drop_weights(self.context.folder, lost.key)

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
