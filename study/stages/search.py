"""The search stage, and the winners and Pareto fronts selected from its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from study.core.files import write_json
from study.core.hashing import Json
from study.core.records import WinnerRecord, to_json
from study.experiment.context import StudyContext
from study.experiment.trial_spec import Trial
from study.metrics.objectives import front
from study.stages.counts import budget_of
from study.stages.plan import Plan
from study.stages.race import Field, Judged
from study.stages.supported import unsupported

if TYPE_CHECKING:  # stages are imported without Optuna
    from study.experiment.method_search import MethodSearch


def first_seeds(plan: Plan, winners: Sequence[Trial]) -> list[Trial]:
    """The winners as the search found them, without their confirmations."""
    return [t for t in winners if t.seed == plan.study.seed]


def search_of(plan: Plan, context: StudyContext) -> MethodSearch:
    """The search of methods that the plan asks for."""
    from study.experiment.method_search import MethodSearch

    study = plan.study
    return MethodSearch(
        context=context,
        defaults=plan.defaults,
        trials=study.trials,
        ratios=study.forget_ratios,
        baselines={ratio: plan.baselines(ratio) for ratio in study.forget_ratios},
        goal=study.goal,
        seed=study.seed,
        lookahead=study.lookahead,
        sampler=study.sampler,
        startup_trials=study.startup_trials,
        early_stopping=study.early_stopping,
        floor=study.collapse_floor,
        race=study.race,
        budget=budget_of(study),
        attacker=study.search_attack(),
        keeps=study.attack_keeps,
        warm=plan.warm.params if plan.warm else {},
        earlier=plan.warm.trials if plan.warm else {},
        unsupported=unsupported(plan.defaults, plan.benchmark),
        keep=study.keep,
    )


def choose_winners(plan: Plan, judged: Judged, races: Mapping[tuple[str, int], Field]) -> list[Trial]:
    """The winner of each method at each ratio with its further seeds, as the race left them, written to disk."""
    study = plan.study
    chosen: list[Trial] = []
    found: dict[str, dict[str, Json]] = {method: {} for method, _ in judged}
    for (method, ratio), field in races.items():
        seeds = [replace(field.best, seed=study.seed + i) for i in range(study.confirm_seeds + 1)]
        chosen += seeds
        found[method][str(ratio)] = to_json(WinnerRecord(tuple(t.key for t in seeds)))
    write_json(plan.folder.winners, found)
    return chosen


def choose_fronts(plan: Plan, judged: Judged) -> list[Trial]:
    """All trials on the fronts of a study with robustness as an objective; none of any other: winners are enough."""
    if not plan.study.robustness:
        return []
    found = [(there, front({t.key: values for t, values in there.items()})) for there in judged.values()]
    return [t for there, keys in found for t in there if t.key in keys]


def judge(search: MethodSearch) -> Judged:
    """The complete trials of each method and ratio with their objectives: none where all failed."""
    outcomes = {method: search.outcomes(method) for method in search.defaults}
    return {
        (method, ratio): {t: values for t, values in ended.items() if t.ratio == ratio}
        for method, ended in outcomes.items()
        for ratio in search.ratios
    }
