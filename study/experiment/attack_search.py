"""The attack search: for each winner the attack with the largest recovery, whatever it leaves of the model.

Every proposal is run on the winner and, with the same budget, on the reference: what counts is the gain above that. It
runs to its last step, even where it is far behind the best so far: its rows are also those of the suite, of the control
of other winners and of later searches, so they may not depend on what else had been tried when it ran.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.contracts import Attack
from study.core.hashing import Json, content_key
from study.core.plugins import name_of, search_space
from study.core.records import AttackProposal, AttackState
from study.core.rows import read_rows
from study.core.specs import parameters, pinned
from study.core.terms import SamplerName
from study.engine.optuna_search import BaseTrial, SearchProblem
from study.experiment.attack import attack_failed, attack_state, try_attack
from study.experiment.checkpoints import is_cached
from study.experiment.context import StudyContext
from study.experiment.trial_spec import Trial
from study.metrics.recovery import above_control, stop


@dataclass(frozen=True)
class AttackJob:
    """One attack on one trial."""

    target: Trial
    attacker: Attack

    @property
    def key(self) -> str:
        """The pair by its content."""
        return content_key((self.target, self.attacker))


@dataclass(frozen=True)
class AttackSearch(SearchProblem[AttackJob, AttackProposal]):
    """The search of attacks on winners, one series for each winner and kind of attack."""

    context: StudyContext
    targets: Mapping[str, tuple[Trial, str]]
    """Winner and attack by what the pair is called on the screen."""
    defaults: Mapping[str, Attack]
    """Where the search of each attack starts."""
    controls: Mapping[int, Trial]
    """The first reference of each ratio as a trial."""
    trials: int
    seed: int
    lookahead: int
    sampler: SamplerName = "auto"
    startup_trials: int = 0

    @property
    def proposal_type(self) -> type[AttackProposal]:
        """An attack on a winner."""
        return AttackProposal

    @property
    def labels(self) -> tuple[str, ...]:
        """Every winner with every attack."""
        return tuple(self.targets)

    @property
    def directions(self) -> Mapping[str, str]:
        """What came back, above control."""
        return {"recovery": "maximize"}

    def path(self, label: str, number: int) -> Path:
        """Below the winner's key and the attack's name."""
        target, name = self.targets[label]
        return self.context.folder.attack_proposal(target.key, name, number)

    def build_job(self, label: str, trial: BaseTrial) -> AttackJob:
        """An attack on the winner."""
        target, name = self.targets[label]
        default = self.defaults[name]
        attacker: Attack = search_space(name_of(default)).space(trial, default)
        return AttackJob(target, attacker)

    def fixed_params(self, label: str, number: int) -> Mapping[str, Any]:
        """What was set on the command line."""
        _, name = self.targets[label]
        return pinned(self.defaults[name], name)

    def initial_params(self, label: str, number: int) -> Mapping[str, Any] | None:
        """The first proposal is the preset's attack."""
        return None if number else parameters(self.defaults[self.targets[label][1]])

    def metadata(self, label: str, job: AttackJob, number: int) -> dict[str, Json]:
        """The key under which the attack's rows lie."""
        return {"attack": content_key(job.attacker)}

    def is_done(self, job: AttackJob) -> bool:
        """Whether both have been attacked, or it is known that it cannot be done."""
        return "failed" in self._states(job) or all(state == "complete" for state in self._states(job))

    def outcome(self, job: AttackJob) -> Mapping[str, float] | None:
        """The recovery on the validation half, at the step where the attacker stops: what else is left is no matter."""
        if not all(state == "complete" for state in self._states(job)):
            return None
        key = content_key(job.attacker)
        own, control = (read_rows(self.context.folder.attack(trial.key, key)) for trial in self._pair(job))
        step = stop([own], [control])
        try:
            recovery = above_control([own], [control], "select", step)
        except ValueError:  # everything was given away, so that there is nothing to compare: as good as failed
            return None
        if step is None:  # one broke before it was scored: nothing came back, as the sampler is told
            return {"recovery": 0.0}
        return None if math.isnan(recovery) else {"recovery": recovery}

    def execute(self, job: AttackJob, label: str, number: int, waited: float) -> dict[str, Any]:
        """Attack the winner and its control."""
        for target in sorted(self._pair(job), key=self._is_loaded, reverse=True):
            reason = try_attack(self.context, target, job.attacker, self.controls[target.ratio].start.key)
            if reason:
                return {"state": f"failed: {reason}"}
        return {"state": "complete", **(self.outcome(job) or {})}

    def record_failure(self, job: AttackJob, reason: str) -> None:
        """An attack that failed, on the first of the two that was not done."""
        for target, state in zip(self._pair(job), self._states(job), strict=True):
            if state == "unfinished":
                attack_failed(self.context.folder, target, job.attacker, reason, "out of memory (device)")
                return

    def describe(self, label: str, number: int, job: AttackJob) -> str:
        """The winner, the attack and the number."""
        return f"{label} {number + 1} of {self.trials}"

    def worst(self, label: str) -> Attack | None:
        """The attack with the largest recovery."""
        found = self.outcomes(label)
        best = max(found, key=lambda job: (found[job]["recovery"], job.key), default=None)
        return best.attacker if best else None

    def _is_loaded(self, target: Trial) -> bool:
        return is_cached(self.context.root, target.start.key, self.context.device)

    def _pair(self, job: AttackJob) -> tuple[Trial, Trial]:
        return job.target, self.controls[job.target.ratio]

    def _states(self, job: AttackJob) -> list[AttackState]:
        return [attack_state(self.context.folder, trial, job.attacker) for trial in self._pair(job)]
