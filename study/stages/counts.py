"""How often a study does what, from its settings alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from study.experiment.budget import Budget
from study.settings import Study


def budget_of(study: Study) -> Budget:
    """What the search of each method may cost."""
    return Budget(study.budget_pflop, study.budget_hours)


@dataclass(frozen=True)
class Counts:
    """How often a plan does what."""

    study: Study
    room: float = math.inf
    """The trials of each method that its budget has room for, as far as is known what one costs."""

    @property
    def ratios(self) -> int:
        """Forget ratios."""
        return len(self.study.forget_ratios)

    @property
    def references(self) -> int:
        """References of all ratios."""
        return self.ratios * self.study.references

    @property
    def baselines(self) -> int:
        """Baselines as trials: vanilla is scored on the questions of each ratio."""
        return self.ratios + self.references

    @property
    def winners(self) -> int:
        """One for each method and ratio."""
        return len(self.study.methods) * self.ratios

    @property
    def each(self) -> int:
        """Trials of each method: whatever is left of its budget, the default of each ratio is tried."""
        return int(min(self.study.trials, max(self.ratios, self.room)))

    @property
    def trials(self) -> int:
        """Trials of the search."""
        return len(self.study.methods) * self.each

    @property
    def confirms(self) -> int:
        """Further seeds of the winners."""
        return self.winners * self.study.confirm_seeds

    @property
    def raced(self) -> int:
        """Runs of the race, if nobody is dropped: of the best few of each ratio and its default; 0 without one."""
        if self.study.race == 1:
            return 0
        tried = (len(range(place, self.each, self.ratios)) for place in range(self.ratios))  # ratios take turns
        contenders = sum(min(self.study.race + 1, trials) for trials in tried)
        return len(self.study.methods) * contenders * self.study.confirm_seeds

    @property
    def repeated(self) -> int:
        """Runs of trials with further seeds: those of winners are among those of the race."""
        return max(self.confirms, self.raced)

    @property
    def attacked(self) -> int:
        """Models that meet the suite."""
        return self.winners + self.confirms + self.baselines

    @property
    def suite(self) -> int:
        """Attacks of the suite on all of them."""
        return self.attacked * len(self.study.attackers())

    @property
    def hunted(self) -> int:
        """Trials of the attack search."""
        return self.winners * len(self.study.attack_defaults()) * self.study.attack_trials

    @property
    def rest(self) -> int:
        """Further trials that may lie on a front, and are then attacked."""
        return max(0, self.trials - self.winners) if self.study.robustness else 0

    @property
    def taught_for_metrics(self) -> int:
        """Models that are taught for the meta-evaluation alone."""
        seeds = self.study.metric_seeds
        return seeds + self.ratios * max(0, 1 + seeds - self.study.references)

    @property
    def begun_with(self) -> int:
        """Vanilla and the references as models; where they are brought, there are as many for all ratios."""
        return 1 + (self.study.references if self.study.vanilla else self.references)

    @property
    def learned(self) -> int:
        """Models that the study keeps, whoever taught them."""
        return self.begun_with + self.taught_for_metrics

    @property
    def taught(self) -> int:
        """Models that are taught."""
        return self.taught_for_metrics if self.study.vanilla else self.learned

    @property
    def again(self) -> int:
        """Runs of trials outside the search: further seeds, and requests one after another."""
        return self.repeated + self.winners * self.study.requests * (self.study.requests > 1)

    @property
    def reported(self) -> int:
        """Models that are scored on the test half: baselines, winners with all their seeds, and defaults."""
        defaults = self.winners * (1 + self.study.confirm_seeds if self.raced else 1)
        return self.baselines + self.winners + self.confirms + defaults + self.checked

    @property
    def attacks(self) -> int:
        """Attacks in all, without those on fronts; a control is attacked with every proposal, too."""
        every = self.trials + self.confirms + self.baselines if self.study.robustness else 0
        return self.suite + 2 * self.hunted + self.checked + every

    @property
    def checked(self) -> int:
        """Models of the meta-evaluation."""
        return 2 * self.ratios * (1 + self.study.metric_seeds) if self.study.metric_check else 0
