"""Health checks of a search: plain sentences on what makes its result less than it seems, each with a remedy.

Pure: a report and the terminal show the same. A check that finds nothing says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis import naming
from analysis.searched import Range, Searched

CHANCE = 0.05
"""A search is said to have learned if its later trials are nearer than the first ones at this error."""
MANY_LOST = 1 / 3
"""Share of trials without a usable model from which on the search wastes its time in a part of the space."""
END = 0.1
"""Part of a range, on its own scale, that counts as one of its ends."""
BEST = 0.25
"""Share of the trials that are the best ones, but at least `FEWEST_BEST` of twice as many."""
FEWEST_BEST = 4
END_ERROR = 0.005
"""Error at which trials gather at an end: a search of a dozen ranges, with two ends each, warns in vain once in ten."""
FEWEST_VALUES = 10
"""Whole numbers of a range that has ends to speak of; fewer are choices."""
FEW = 3
"""Trials for each hyper-parameter below which one cannot even have been low, middling and high."""
PLENTY = 10
"""Trials for each hyper-parameter that are usual (Loeppky, Sacks & Welch 2009, for computer experiments)."""
MOST = 4
"""Searches that a sentence names, and ends of ranges that have a sentence; the report has a table of all."""


class Settings(NamedTuple):
    """What the checks need to know of a study."""

    trials: int
    """Of each method, over all ratios."""
    ratios: int


class Edge(NamedTuple):
    """How many of the best trials lie at one end of a range."""

    name: str
    upper: bool
    there: int
    best: int
    bound: float


def checks(searches: Sequence[Searched], settings: Settings) -> list[str]:
    """All that stands out, the most general first."""
    found = [*_learned(searches, settings), *_lost(searches), *_edges(searches), *_noise(searches),
             *_few(searches, settings)]  # fmt: skip
    return [sentence for sentence in found if sentence]


# ---- whether the search learned anything ---------------------------------------------------------------------------
class Learned(NamedTuple):
    """The trials that were proposed from the results of others beside those that were drawn before."""

    first: int
    later: int
    first_median: float
    later_median: float
    p: float
    """Of no gain: the rank test of Wilcoxon in each search, together by van Elteren's weights. NaN without trials."""


def learned(searches: Sequence[Searched]) -> Learned:
    """Whether trials drawn from results are nearer to the ideal point than those of the same search drawn before; one
    without a usable model is farther than any other.

    Defaults and winners of earlier studies are given, not drawn: they are left out.
    """
    above = variance = 0.0
    groups: tuple[list[float], list[float]] = ([], [])
    for one in searches:
        drawn = one.trials[~one.trials["default"] & ~one.trials["warm"] & ~one.trials["duplicate"]]
        drawn = drawn[~drawn["state"].isin(["unfinished", "stopped"])]  # the first few are never stopped: a bias
        cost = drawn["distance"].astype(float).fillna(math.inf)
        modelled = drawn["number"] >= one.startup
        first, later = cost[~modelled].tolist(), cost[modelled].tolist()
        groups[0].extend(first)
        groups[1].extend(later)
        if first and later:
            ranks, ties = cost.rank(), cost.value_counts()
            size, pairs = len(cost), len(first) * len(later)
            gained = pairs + len(later) * (len(later) + 1) / 2 - ranks[modelled].sum()
            tied = float((ties**3 - ties).sum()) / (size * (size - 1)) if size > 1 else 0.0
            above += (gained - pairs / 2) / (size + 1)
            variance += pairs / 12 * (size + 1 - tied) / (size + 1) ** 2
    p = 0.5 * math.erfc(above / math.sqrt(2 * variance)) if variance > 0 else math.nan
    medians = [float(np.median(group)) if group else math.nan for group in groups]
    return Learned(len(groups[0]), len(groups[1]), medians[0], medians[1], p)


def _learned(searches: Sequence[Searched], settings: Settings) -> Iterator[str]:
    found = learned(searches)
    more = f"--trials {2 * settings.trials}"
    if found.later and not math.isnan(found.p) and found.p >= CHANCE:
        yield (
            f"The search is not shown to have learned anything: its {found.later} later trials, proposed from earlier "
            f"results, are no nearer to the ideal point than the {found.first} drawn before any (median distance "
            f"{found.later_median:.2f} against {found.first_median:.2f}, p = {found.p:.2f}). It may need more of "
            f"them: {more}."
        )


# ---- trials that were lost -----------------------------------------------------------------------------------------
def _lost(searches: Sequence[Searched]) -> Iterator[str]:
    many = [one for one in searches if len(one.lost) > 1 and len(one.lost) >= MANY_LOST * _ended(one)]
    if not many:
        return
    listed = _first([f"{_name(one)} {len(one.lost)} of {_ended(one)} ({_states(one)})" for one in many])
    yield f"Many trials left no usable model: {listed}.{_gentler(many)}{_why(many)}"


def _ended(one: Searched) -> int:
    return int(((one.trials["state"] != "unfinished") & ~one.trials["duplicate"]).sum())


def _states(one: Searched) -> str:
    return ", ".join(f"{count} {state}" for state, count in one.lost["state"].value_counts().sort_index().items())


def _gentler(many: Sequence[Searched]) -> str:
    """A setting at which less is lost: the learning rate of the best trial, if it is lower than most that were."""
    for one in many:
        lost = one.lost[one.lost["state"] != "failed"].index
        kept = one.scored.drop(lost, errors="ignore").sort_values("distance").index
        rates = [float(one.params[at]["learning_rate"]) for at in [*kept[:1], *lost] if "learning_rate" in one.space]
        if len(kept) and len(rates) > 1 and rates[0] < float(np.median(rates[1:])):
            return f" Their ranges may reach too high; gentler is {_with(one, 'learning_rate', rates[0])} in --methods."
    return ""


def _why(many: Sequence[Searched]) -> str:
    """The reason that most of the failed trials give, which says what to change."""
    reasons = pd.concat([one.lost.loc[one.lost["state"] == "failed", "reason"] for one in many])
    reasons = reasons[reasons != ""]
    return f" Most of the failed ones say: {reasons.mode().iloc[0]}." if len(reasons) else ""


# ---- ends of ranges ------------------------------------------------------------------------------------------------
def ends(one: Searched) -> list[Edge]:
    """The ends of ranges at which more of the best trials lie than chance would put there."""
    scored = one.scored.sort_values("distance")
    if not one.told or len(scored) < 2 * FEWEST_BEST:
        return []
    best = scored.index[: max(FEWEST_BEST, math.ceil(BEST * len(scored)))]
    found = []
    for name, domain in one.space.items():
        if not isinstance(domain, Range) or (domain.whole and domain.high - domain.low < FEWEST_VALUES):
            continue
        places = [domain.place(one.params[at][name]) for at in best if name in one.params[at]]
        for upper, there in ((False, sum(p <= END for p in places)), (True, sum(p >= 1 - END for p in places))):
            if there > 1 and _at_least(there, len(places)) <= END_ERROR:
                found.append(Edge(name, upper, there, len(places), domain.high if upper else domain.low))
    return found


def _at_least(there: int, of: int) -> float:
    """The probability that so many of some trials lie at an end by chance."""
    return math.fsum(math.comb(of, k) * END**k * (1 - END) ** (of - k) for k in range(there, of + 1))


def _edges(searches: Sequence[Searched]) -> Iterator[str]:
    found = [(one, edge) for one in searches for edge in ends(one)]
    for one, edge in found[:MOST]:
        yield (
            f"{edge.there} of the {edge.best} best trials of {_name(one)} have {edge.name} at its "
            f"{'upper' if edge.upper else 'lower'} end ({edge.bound:.3g}): widen it. {_wider(one, edge)}"
        )
    if len(found) > MOST:
        yield f"The best trials gather at {len(found) - MOST} more ends of ranges; the report lists them."


def _wider(one: Searched, edge: Edge) -> str:
    """How a range is moved: those of the schedule follow the default."""
    space = f"search_spaces/{one.method.partition(':')[0]}.py"
    if edge.name in ("learning_rate", "steps"):
        return "A new study with --methods-from and this folder searches around the winners."
    return f"Its range is in {space}."


# ---- noise and number ----------------------------------------------------------------------------------------------
def spread(one: Searched) -> float:
    """The standard deviation of the distance within the better half of the trials: what the choice is among."""
    better = one.scored["distance"].nsmallest(math.ceil(len(one.scored) / 2))
    return float(better.std()) if len(better) > 1 else math.nan


def _noise(searches: Sequence[Searched]) -> Iterator[str]:
    noisy = [one for one in searches if one.noise > 0 and one.noise >= spread(one)]
    if noisy:
        listed = _first([f"{_name(one)} ({one.noise:.3f} against {spread(one):.3f})" for one in noisy])
        yield (
            "Seeds of one setting differ as much as the better half of the trials do (standard deviation of the "
            f"distance): {listed}. Which of their trials won may be chance. Ask about more people, with larger "
            "--forget-ratios or a --benchmark that has more of them, and compare means over seeds (--confirm-seeds)."
        )


def _few(searches: Sequence[Searched], settings: Settings) -> Iterator[str]:
    few = {one.method: one for one in reversed(searches) if len(one.trials) < FEW * len(one.space)}
    if few:
        found = sorted(few.values(), key=lambda one: -len(one.space))
        listed = _first([f"{naming.method(one.method)} has {len(one.trials)} for {len(one.space)}" for one in found])
        wanted = PLENTY * len(found[0].space) * settings.ratios
        yield (
            f"Too few trials for the number of hyper-parameters: {listed}; {PLENTY} for each are usual. Ask for more "
            f"(--trials {wanted}), or search fewer by setting some: {_fixed(found[0])} in --methods."
        )


def _fixed(one: Searched) -> str:
    """A method with one hyper-parameter, a choice if there is any, set to what the best trial had."""
    best = one.scored.sort_values("distance").index
    name, domain = min(one.space.items(), key=lambda item: isinstance(item[1], Range))
    there = one.params[best[0]] if len(best) else {}
    return _with(one, name, there.get(name, domain.low if isinstance(domain, Range) else domain.choices[0]))


def _first(texts: Sequence[str]) -> str:
    """The first few of a list, and how many more there are."""
    rest = len(texts) - MOST
    return naming.listed([*texts[:MOST], f"{rest} more"] if rest > 1 else texts)


def _name(one: Searched) -> str:
    return f"{naming.method(one.method)} at {one.ratio} %"


def _with(one: Searched, name: str, value: object) -> str:
    """A method as it is written on the command line with one more setting."""
    shown = f"{value:.3g}" if isinstance(value, float) else value
    return f"{one.method}{',' if ':' in one.method else ':'}{name}={shown}"
