"""The search of one method at one ratio: what could be proposed, what was, how it ended, and the noise of its seeds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pandas as pd

from analysis.study_folder import StudyResults
from analysis.trials import proposals, trials
from study.core.records import MethodProposal
from study.core.sampling import modelled_from
from study.core.specs import name_in, settings_in, spelled
from study.metrics.objectives import BROKEN

FAR = 4.0
"""Where a study does not say, numbers that are this many times apart are taken to be searched by their logarithm."""
DEALT = ("forget_ratio",)
"""Parameters of a proposal that are dealt in turn and not searched."""


@dataclass(frozen=True)
class Range:
    """The numbers that a hyper-parameter can have."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def place(self, value: float) -> float:
        """Where a number lies, from 0 at the lower end to 1 at the upper."""
        low, high, at = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return (at - low) / (high - low) if high > low else 0.5


@dataclass(frozen=True)
class Choices:
    """The values among which a hyper-parameter is chosen."""

    choices: tuple[Any, ...]

    def place(self, value: Any) -> float:
        """Where a choice lies, from 0 for the first to 1 for the last."""
        return self.choices.index(value) / (len(self.choices) - 1) if len(self.choices) > 1 else 0.5


Domain = Range | Choices


@dataclass(frozen=True, eq=False)
class Searched:
    """The search of one method at one ratio."""

    method: str
    ratio: int
    space: Mapping[str, Domain]
    """What is searched, by hyper-parameter; what was set on the command line is not."""
    told: bool
    """Whether the study says what could be proposed; else it is what was."""
    trials: pd.DataFrame
    """One line for each proposal, by number: key, state, duplicate, default, warm, reason, the objectives, distance."""
    params: Sequence[Mapping[str, Any]]
    """The hyper-parameters of each line."""
    noise: float
    """The standard deviation of the distance between seeds of equal settings, on the validation half; NaN if no
    setting was run from two."""
    seeds: int
    """The number of runs from which that is known."""
    startup: float = math.inf
    """The number of the first proposal that was drawn from results; infinite if none was, or the study does not say how
    it drew."""

    @property
    def scored(self) -> pd.DataFrame:
        """The trials that have a result, each once."""
        return self.trials[self.trials["distance"].notna() & ~self.trials["duplicate"]]

    @property
    def lost(self) -> pd.DataFrame:
        """The trials that ended, each once, without a usable model: failed, diverged, stopped short or collapsed."""
        ended = self.trials[(self.trials["state"] != "unfinished") & ~self.trials["duplicate"]]
        collapsed = (ended["state"] == "complete") & (ended["utility"] < BROKEN)
        found = ended.assign(state=ended["state"].mask(collapsed, "collapsed"))
        return found[~found["state"].isin(["complete", "stopped"])]

    def again(self, at: int, values: Mapping[str, Any]) -> Searched:
        """One line, run again: the same hyper-parameters with other values."""
        return replace(
            self, trials=self.trials.loc[[at]].assign(**values).reset_index(drop=True), params=[self.params[at]]
        )


@lru_cache(maxsize=4)
def searches(study: StudyResults) -> tuple[Searched, ...]:
    """Every search of a study, by ratio, then in the order of its methods."""
    return tuple(_each(study))


def spelled_method(study: StudyResults, method: str, key: str) -> str:
    """A trial of the search as a method with its hyper-parameters, the way `--methods` takes it; else the method."""
    for proposal in study.proposals:
        if proposal.method == method and proposal.trial == key:
            found = {name: value for name, value in proposal.params.items() if name not in DEALT}
            return spelled(name_in(method), {**found, **settings_in(method)})
    return method


def _each(study: StudyResults) -> Iterator[Searched]:
    table, known = proposals(study), {(p.method, p.number): p for p in study.proposals}
    reasons = {key: trial.reason for key, trial in study.trials.items()}
    for ratio in study.ratios:
        for method in study.methods:
            mine = table[(table["method"] == method) & (table["ratio"] == ratio)].sort_values("number")
            mine = mine.astype({"distance": float, "utility": float})  # objects where nothing was scored
            if mine.empty:
                continue
            own = [known[method, number] for number in mine["number"]]
            params = [{k: v for k, v in p.params.items() if k not in DEALT} for p in own]
            told = (study.record.get("spaces") or {}).get(method)
            noise, seeds = _noise(study, method, ratio)
            yield Searched(
                method, ratio, _space(told, params, settings_in(method)), told is not None,
                mine.assign(default=[bool(p.default) for p in own], warm=[p.warm for p in own],
                            reason=[reasons.get(key, "") for key in mine["key"]]).reset_index(drop=True),
                params, noise, seeds, _startup(study, own),
            )  # fmt: skip


def _startup(study: StudyResults, own: Sequence[MethodProposal]) -> float:
    """Where a search began to draw from results. One that was told of earlier trials did so sooner: its own proposals
    say from where. Before `startup_trials` there were `random_trials` of each method, over all ratios."""
    if "random_trials" in study.settings:
        return float(study.settings["random_trials"])
    if "sampler" not in study.settings:
        return math.inf
    first = modelled_from(study.settings["sampler"], int(study.settings.get("startup_trials", 0)))
    informed = [p.number for p in own if p.priors and study.settings["sampler"] == "auto"]
    return min([math.inf if first is None else first * len(study.ratios), *informed])


def _space(
    told: Mapping[str, Any] | None, params: Sequence[Mapping[str, Any]], fixed: Collection[str]
) -> dict[str, Domain]:
    """What is searched: as the study says, else as far as it was proposed."""
    said = {name: _told(stored) for name, stored in (told or {}).items()}
    met = dict.fromkeys(name for one in params for name in one if name not in said)
    found = {**said, **{name: _met([one[name] for one in params if name in one]) for name in met}}
    return {name: domain for name, domain in found.items() if name not in fixed and not _single(domain)}


def _told(stored: Mapping[str, Any]) -> Domain:
    """A range in the form in which Optuna stores it."""
    of = stored["attributes"]
    if "choices" in of:
        return Choices(tuple(of["choices"]))
    return Range(of["low"], of["high"], of["log"], stored["name"].startswith("Int"))


def _met(values: Sequence[Any]) -> Domain:
    """The range that some values span, or the different ones among them: what is drawn from a range never repeats."""
    different, whole = set(values), all(isinstance(value, int) for value in values)
    if any(isinstance(value, bool | str) for value in values) or (not whole and len(different) < len(values)):
        return Choices(tuple(sorted(different, key=str)))
    low, high = min(values), max(values)
    return Range(low, high, 0 < FAR * low < high, whole)


def _single(domain: Domain) -> bool:
    return len(domain.choices) < 2 if isinstance(domain, Choices) else domain.low == domain.high


def _noise(study: StudyResults, method: str, ratio: int) -> tuple[float, int]:
    """The standard deviation between seeds of equal settings, pooled over settings, and the number of runs."""
    found = trials(study)
    mine = found[(found["method"] == method) & (found["ratio"] == ratio)].dropna(subset=["distance"])
    groups = mine.groupby("parameters")["distance"]
    several = groups.transform("size") > 1
    if not several.any():
        return math.nan, 0
    apart = (mine["distance"] - groups.transform("mean"))[several]
    freedom = len(apart) - mine.loc[several, "parameters"].nunique()
    return math.sqrt(math.fsum(apart**2) / freedom), len(apart)
