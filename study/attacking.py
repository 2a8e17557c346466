"""The attacker's own search: for each winner the attack that gets most back without breaking the model.

Every proposal is run on the winner and, with the same budget, on the reference: what counts is the gain above that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import BaseTrial

from study.contracts import Attack, Trial
from study.lending import is_held
from study.plugins import search_space
from study.recovery import above_control, kept
from study.series import Outcome, Series
from study.specs import name_in, parameters, pinned
from study.store import Json, content_key, read_rows
from study.trial import Bench, attack_failed, attack_state, attacked


@dataclass(frozen=True)
class Attacked:
    """One attack on one trial."""

    target: Trial
    attacker: Attack

    @property
    def key(self) -> str:
        """The pair by its content."""
        return content_key((self.target, self.attacker))


@dataclass(frozen=True)
class AttackSearch(Series[Attacked]):
    """The search of attacks on winners, one series for each winner and kind of attack."""

    bench: Bench
    targets: Mapping[str, tuple[Trial, str]]
    """Winner and attack by what the pair is called on the screen."""
    defaults: Mapping[str, Attack]
    """Where the search of each attack starts."""
    controls: Mapping[int, Trial]
    """The reference of each ratio as a trial."""
    trials: int
    seed: int
    lookahead: int
    random_trials: int
    keeps: float
    """Least part of the retain accuracy that an attacked model must keep."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Every winner with every attack."""
        return tuple(self.targets)

    @property
    def directions(self) -> Mapping[str, str]:
        """What came back, above control."""
        return {"recovery": "maximize"}

    def place(self, label: str, number: int) -> Path:
        """Below the winner's key and the attack's name."""
        target, name = self.targets[label]
        return self.bench.folder.attack_proposal(target.key, name, number)

    def asked(self, label: str, trial: BaseTrial) -> Attacked:
        """An attack on the winner."""
        target, name = self.targets[label]
        attacker: Attack = search_space(name_in(name)).space(trial, self.defaults[name])
        return Attacked(target, attacker)

    def fixed(self, label: str, number: int) -> Mapping[str, Any]:
        """What was set on the command line."""
        _, name = self.targets[label]
        return pinned(self.defaults[name], name)

    def start(self, label: str, number: int) -> Mapping[str, Any] | None:
        """The first proposal is the preset's attack."""
        return None if number else parameters(self.defaults[self.targets[label][1]])

    def about(self, label: str, job: Attacked, number: int) -> dict[str, Json]:
        """The key under which the attack's rows lie."""
        return {"attack": content_key(job.attacker)}

    def finished(self, job: Attacked) -> bool:
        """Whether both have been attacked, or it is known that it cannot be done."""
        return "failed" in self._states(job) or all(state == "complete" for state in self._states(job))

    def outcome(self, job: Attacked) -> Outcome | None:
        """The recovery on the half that selects, and how much less than the bound is kept."""
        if not all(state == "complete" for state in self._states(job)):
            return None
        key = content_key(job.attacker)
        own, control = (read_rows(self.bench.folder.attack(trial.key, key)) for trial in self._pair(job))
        try:
            recovery = above_control(own, control, "select")
        except ValueError:  # everything was given away, so that there is nothing to compare: as good as failed
            return None
        return (
            None
            if math.isnan(recovery)
            else Outcome({"recovery": recovery}, {"kept": self.keeps - kept(own, "select")})
        )

    def execute(self, job: Attacked, waited: float) -> dict[str, Any]:
        """Attack the winner and its control."""
        for target in sorted(self._pair(job), key=self._is_loaded, reverse=True):
            reason = attacked(self.bench, target, job.attacker, self.controls[target.ratio].start.key)
            if reason:
                return {"state": f"failed: {reason}"}
        outcome = self.outcome(job)
        return {"state": "complete", **(outcome.values if outcome else {})}

    def lost(self, job: Attacked, reason: str) -> None:
        """An attack that failed, on the first of the two that was not done."""
        for target, state in zip(self._pair(job), self._states(job), strict=True):
            if state == "missing":
                attack_failed(self.bench.folder, target, job.attacker, reason)
                return

    def told(self, label: str, number: int, job: Attacked) -> str:
        """The winner, the attack and the number."""
        return f"{label} {number + 1} of {self.trials}"

    def worst(self, label: str) -> Attack | None:
        """The attack that got most back while the model kept what it must; of all, if none did."""
        found = self.outcomes(label)
        within = {job: outcome for job, outcome in found.items() if outcome.beyond["kept"] <= 0} or found
        best = max(within, key=lambda job: (within[job].values["recovery"], job.key), default=None)
        return best.attacker if best else None

    def _is_loaded(self, target: Trial) -> bool:
        return is_held(self.bench.root, target.start.key, self.bench.device)

    def _pair(self, job: Attacked) -> tuple[Trial, Trial]:
        return job.target, self.controls[job.target.ratio]

    def _states(self, job: Attacked) -> list[str]:
        return [attack_state(self.bench.folder, trial, job.attacker) for trial in self._pair(job)]
