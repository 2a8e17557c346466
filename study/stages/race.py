"""The race: the best trials of each method and ratio meet further seeds before a winner is named."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from study.core.files import write_json
from study.core.hashing import Json
from study.core.records import RaceRecord, RaceRun, to_json
from study.engine.jobs import Job
from study.experiment.attack import too_small
from study.experiment.trial_spec import Trial
from study.metrics.objectives import distance_to_ideal, nearest_first
from study.metrics.racing import still_racing
from study.stages.launch import raise_first, run_jobs
from study.stages.plan import Plan, label

if TYPE_CHECKING:  # stages are imported without Optuna
    from study.experiment.method_search import MethodSearch

Judged = Mapping[tuple[str, int], Mapping[Trial, Mapping[str, float]]]
"""The objectives of trials, by method and ratio."""


@dataclass
class Field:
    """The contenders of one method and ratio, the best of the first seed first, and how far they came."""

    contenders: list[Trial]
    default: Trial | None
    """The default, if it ended well; in a race it is a contender, so that what tuning gains is known for every seed."""
    distances: dict[Trial, list[float]]
    """Of each contender for the seeds that it was run with, in order; infinite where a run ended badly."""

    @property
    def racing(self) -> list[Trial]:
        """Those that are not behind."""
        return still_racing({t: self.distances[t] for t in self.contenders})

    def runs(self, of: Trial) -> list[Trial]:
        """A contender with every seed that it was run with."""
        return [replace(of, seed=of.seed + i) for i in range(len(self.distances[of]))]

    @property
    def best(self) -> Trial:
        """The nearest to the ideal over all seeds of those still in the race; the first one if none is."""
        means = {t: math.fsum(self.distances[t]) / len(self.distances[t]) for t in self.racing}
        return nearest_first(means)[0] if means else self.contenders[0]


def race(plan: Plan, search: MethodSearch, judged: Judged) -> dict[tuple[str, int], Field]:
    """Run the race of every method and ratio that has a complete trial.

    Every run is on disk when it has ended, so that a race that is interrupted goes on where it was. Raises `Failed` if
    one did not end: an accident must not decide who wins.
    """
    study = plan.study
    fields = {
        (method, ratio): _field(plan, search.default(method, ratio), there)
        for (method, ratio), there in judged.items()
        if there
    }
    for number in range(1, study.confirm_seeds + 1) if study.race > 1 else ():
        runs = [
            replace(t, seed=study.seed + number)
            for field in fields.values()
            if len(racing := field.racing) > 1
            for t in racing
        ]
        jobs = [
            Job(
                f"{label(t)} seed {t.seed} ({t.key})",
                search.execute_given,
                (t,),
                partial(too_small, plan.folder, t, search.attacker),
            )
            for t in dict.fromkeys(runs)
            if not search.is_done(t)
        ]
        raise_first(run_jobs("race", jobs, study))
        for field in fields.values():
            if len(racing := field.racing) > 1:
                for t in racing:
                    values = search.outcome(replace(t, seed=study.seed + number))
                    field.distances[t].append(math.inf if values is None else distance_to_ideal(**values))
    write_json(plan.folder.race, dict(_record(fields)))
    return fields


def _field(plan: Plan, first: Trial, there: Mapping[Trial, Mapping[str, float]]) -> Field:
    """The best few of the first seed, and the default, which is what tuning has to beat."""
    distances = {t: distance_to_ideal(**values) for t, values in there.items()}
    default = first if first in there else None
    chosen = nearest_first(distances)[: max(1, plan.study.race)]
    chosen += [default] if default and default not in chosen and plan.study.race > 1 else []
    return Field(chosen, default, {t: [distances[t]] for t in (*chosen, *([default] if default else []))})


def _record(fields: Mapping[tuple[str, int], Field]) -> Iterator[tuple[str, Json]]:
    for (method, ratio), field in fields.items():
        runs = tuple(RaceRun(t.key, tuple(field.distances[t])) for t in field.contenders)
        racing = tuple(t.key for t in field.racing)
        yield f"{method} {ratio}", to_json(RaceRecord(method, ratio, runs, field.best.key, racing))
