"""Searches replayed on a table of finished trials: `python -m tests.cost.search_replay`.

A proposal has the result of the nearest line of the table, so a search of a minute takes milliseconds and can be
repeated. What draws, stops and races is the code of a study; only unlearning is looked up. Of three seeds one is the
search's, the others are those of the race, in another order in every repetition.

Regret is the distance to the ideal on the test half, a mean over the seeds, of the trial that was named, above that of
the best line of the table. Work is what all trials computed to get there, with the further seeds of the race or,
without one, of the winner.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import multiprocessing
import random
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
import tyro
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import BaseTrial, FixedTrial

from analysis.pareto import hypervolume
from search_spaces import ranges
from study.contracts import Method
from study.core.hashing import Json, content_key
from study.core.plugins import search_space
from study.core.records import Proposal
from study.core.specs import name_in, parameters
from study.core.terms import SamplerName
from study.engine.optuna_search import Proposer, SearchProblem, Told
from study.metrics.halving import survives
from study.metrics.objectives import DIRECTIONS, costs, distance_to_ideal
from study.metrics.racing import behind
from study.presets import PRESETS
from tests.cost.search_table import SEEDS, TABLE, defaults

CHECKPOINTS = (4, 8, 12, 16, 24, 32, 48, 64)
"""Trials after which a winner is named."""
STUDY = PRESETS["tiny"][1]
"""The default study, whose settings are replayed."""
REPLAYS = Path(__file__).with_name("search_replay.csv")


@dataclass(frozen=True)
class Setting:
    """How a search is run."""

    name: str
    sampler: SamplerName
    startup: int = 0
    stops: bool = False
    floor: float = 0.0
    """0 for no collapse guard."""
    race: int = 1


TODAY = Setting("before", "tpe", startup=4)
"""TPE after four random trials, every trial to its end, the best of one seed."""


@dataclass(frozen=True, eq=False)
class Line:
    """One line of the table: a point of the space with its results by seed."""

    params: Mapping[str, Any]
    runs: tuple[Mapping[str, float], ...]

    def values(self, seed: int, at: str) -> dict[str, float]:
        """Both objectives of a seed: on the `validation` or `test` half, or at `rung_1` or `rung_2`."""
        return {name: self.runs[seed][f"{at}_{name}"] for name in DIRECTIONS}

    def distance(self, seed: int, at: str) -> float:
        """From the ideal."""
        return distance_to_ideal(**self.values(seed, at))

    @cached_property
    def truth(self) -> float:
        """The distance on the test half, a mean over the seeds."""
        return math.fsum(self.distance(seed, "test") for seed in range(len(self.runs))) / len(self.runs)


def read_table(path: Path = TABLE) -> dict[str, list[Line]]:
    """The lines of each method that ended well for every seed."""
    found: dict[str, dict[str, list[dict[str, str]]]] = {}
    with path.open() as file:
        for line in csv.DictReader(file):
            found.setdefault(line["method"], {}).setdefault(line["params"], []).append(line)
    return {
        method: [
            Line(json.loads(params), tuple(map(_numbers, runs)))
            for params, runs in there.items()
            if all(run["state"] == "complete" for run in runs)
        ]
        for method, there in found.items()
    }


def _numbers(line: Mapping[str, str]) -> dict[str, float]:
    texts = ("method", "kind", "number", "seed", "key", "state", "params")
    return {name: float(value or "nan") for name, value in line.items() if name not in texts}


@dataclass(frozen=True)
class Job:
    """A line that is run by one method."""

    key: str
    line: Line


@dataclass
class Replay(SearchProblem[Job, Proposal]):
    """The search of one method on the lines of a table."""

    method: str
    default: Method
    lines: Sequence[Line]
    setting: Setting
    root: Path
    seed: int
    order: tuple[int, ...]
    """The seeds of the table: the search's, then those of the race."""
    trials: int = max(CHECKPOINTS)
    lookahead: int = 2
    drawn: dict[str, Line] = field(default_factory=dict)
    """The line that is nearest to each job."""
    ends: dict[str, int] = field(default_factory=dict)
    """The rung at which jobs ended that have been run: 1, 2, or 3 for those that went to their end."""
    collapsed: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)
    """The job of each proposal so far."""

    proposal_type = Proposal
    labels = ("replay",)
    directions = DIRECTIONS

    @property
    def sampler(self) -> SamplerName:  # type: ignore[override]  # a setting, where a search has a field
        """Of the setting."""
        return self.setting.sampler

    @property
    def startup_trials(self) -> int:  # type: ignore[override]
        """Of the setting."""
        return self.setting.startup

    @cached_property
    def space(self) -> dict[str, BaseDistribution]:
        """Every parameter of the table with its range."""
        return _space(self.method, self.default, self.lines)

    @cached_property
    def places(self) -> NDArray[np.float64]:
        """The lines as points."""
        return np.array([_place(self.space, line.params) for line in self.lines])

    def path(self, label: str, number: int) -> Path:
        return self.root / f"{number:03d}.json"

    def build_job(self, label: str, trial: BaseTrial) -> Job:
        search_space(name_in(self.method)).space(trial, self.default)
        params = {name: trial.params[name] for name in trial.params}
        gaps = np.abs(self.places - _place(self.space, params))
        gaps = np.where(np.isnan(gaps), 1.0, np.where(self._choices, gaps > 0, gaps))
        job = Job(content_key(params), self.lines[int((gaps**2).sum(axis=1).argmin())])
        self.drawn[job.key] = job.line
        return job

    @cached_property
    def _choices(self) -> NDArray[np.bool_]:
        return np.array([isinstance(one, CategoricalDistribution) for one in self.space.values()])

    def fixed_params(self, label: str, number: int) -> Mapping[str, Any]:
        return {}

    def initial_params(self, label: str, number: int) -> Mapping[str, Any] | None:
        return None if number else parameters(self.default)

    def metadata(self, label: str, job: Job, number: int) -> dict[str, Json]:
        return {}

    def is_done(self, job: Job) -> bool:
        return job.key in self.ends

    def outcome(self, job: Job) -> Mapping[str, float] | None:
        if self.ends.get(job.key) != 3:
            return None
        return job.line.values(self.order[0], "validation")

    def told(self, job: Job) -> Told | None:
        values = self.outcome(job)
        if values is None and job.key in self.collapsed:
            values = job.line.values(self.order[0], f"rung_{self.ends[job.key]}")
        return None if values is None else Told(values, self.setting.floor - values["utility"])

    def execute(self, job: Job, label: str, number: int, waited: float) -> dict[str, Any]:
        """Look a line up, as far as it is run."""
        self.keys.append(job.key)
        if job.key in self.ends:
            return {}
        self.ends[job.key] = 3
        for rung in (1, 2) if number and (self.setting.stops or self.setting.floor) else ():
            own = job.line.values(self.order[0], f"rung_{rung}")
            if own["utility"] < self.setting.floor:
                self.ends[job.key] = rung
                self.collapsed.add(job.key)
                break
            if self.setting.stops and not survives(own, self._peers(number, rung), rung):
                self.ends[job.key] = rung
                break
        return {}

    def _peers(self, number: int, rung: int) -> list[Mapping[str, float]]:
        known = dict.fromkeys(self.keys[: max(0, number - self.lookahead + 1)])
        return [self._at(key, f"rung_{rung}") for key in known if self.ends[key] >= rung]

    def _at(self, key: str, at: str) -> dict[str, float]:
        return self.drawn[key].values(self.order[0], at)

    def record_failure(self, job: Job, reason: str) -> None:
        raise AssertionError(reason)

    def describe(self, label: str, number: int, job: Job) -> str:
        return f"{number}"

    # ---- what is measured --------------------------------------------------------------------------------------
    def work(self, keys: Sequence[str]) -> tuple[float, float]:
        """The floating-point operations of training, and of all, of the jobs of some keys."""
        training = total = 0.0
        for key in keys:
            run, end = self.drawn[key].runs[self.order[0]], self.ends[key]
            trained = run["unlearn_flops"] * end / 3
            watched = run["rung_flops"] * min(end, 2) / 2 * bool(self.setting.stops or self.setting.floor)
            training += trained
            total += trained + watched + (run["score_flops"] if end == 3 else 0.0)
        return training, total

    def named(self, keys: Sequence[str]) -> tuple[Line, float]:
        """The winner of some jobs, and the work of further seeds."""
        ended = list(dict.fromkeys(self.drawn[key] for key in keys if self.ends[key] == 3))
        own = {line: [line.distance(self.order[0], "validation")] for line in ended}
        order = sorted(ended, key=lambda line: own[line][0])
        field = list(dict.fromkeys([*order[: self.setting.race], *(ended[:1] if self.setting.race > 1 else [])]))
        spent, racing = 0.0, field
        for seed in self.order[1 : 1 + STUDY.confirm_seeds]:
            if len(racing) > 1:
                lost = behind([own[line] for line in racing])
                racing = [line for line, left in zip(racing, lost, strict=True) if not left]
            for line in racing:
                spent += line.runs[seed]["unlearn_flops"] + line.runs[seed]["score_flops"]
                own[line].append(line.distance(seed, "validation"))
        return min(racing, key=lambda line: math.fsum(own[line]) / len(own[line])), spent


def _space(method: str, default: Method, lines: Sequence[Line]) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = dict(ranges(search_space(name_in(method)).space, default))
    for line in lines:  # of a space with conditions none asks for all parameters
        asked = FixedTrial({**parameters(default), **line.params})
        search_space(name_in(method)).space(asked, default)
        found |= asked.distributions
    return dict(sorted(found.items()))


def _place(space: Mapping[str, BaseDistribution], params: Mapping[str, Any]) -> NDArray[np.float64]:
    """Numbers from 0 to 1 over their range, choices by their index; NaN for what is not asked for."""
    return np.array([_coordinate(one, params.get(name)) for name, one in space.items()])


def _coordinate(distribution: Any, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.choices.index(value))
    scale = math.log if distribution.log else float
    low, high = scale(distribution.low), scale(distribution.high)
    return (scale(value) - low) / (high - low or 1.0)


def replayed(
    table: Mapping[str, Sequence[Line]], setting: Setting, repetitions: int, trials: int
) -> Iterator[dict[str, Any]]:
    """One line for each method, repetition and checkpoint."""
    for method, repetition in itertools.product(table, range(repetitions)):
        lines = table[method]
        order = tuple(random.Random(repetition).sample(range(SEEDS), SEEDS))
        with tempfile.TemporaryDirectory() as folder:
            search = Replay(method, defaults()[method], lines, setting, Path(folder), repetition, order, trials)
            proposer = Proposer(search)
            for number in range(trials):
                job = search.job("replay", proposer.propose("replay", number).params)
                search.execute(job, "replay", number, 0.0)
                if number + 1 in CHECKPOINTS:
                    winner, spent = search.named(search.keys)
                    training, total = search.work(search.keys)
                    yield {
                        "setting": setting.name, "method": method, "repetition": repetition, "trials": number + 1,
                        "training": training, "work": total + spent,
                        "regret": winner.truth - min(line.truth for line in lines),
                        "hypervolume": _hypervolume(search, search.keys),
                    }  # fmt: skip


def _hypervolume(search: Replay, keys: Sequence[str]) -> float:
    """Of the front of the validation half, of the trials that went to their end."""
    ended = [search.outcome(Job(key, search.drawn[key])) for key in keys]
    return hypervolume(np.array([costs(values) for values in ended if values is not None]))


# ---- the command ---------------------------------------------------------------------------------------------------
DEFAULT = Setting(
    "default", STUDY.sampler, STUDY.startup_trials, STUDY.early_stopping == "pareto", STUDY.collapse_floor, STUDY.race
)
MODELLED = replace(DEFAULT, name="TPE, rungs, race", startup=6)
SETTINGS = (
    TODAY,
    Setting("random", "random"),
    Setting("sobol", "sobol"),
    replace(DEFAULT, name="sobol, race", stops=False, floor=0.0),
    replace(DEFAULT, name="sobol, rungs", race=1),
    replace(MODELLED, name="TPE, race", stops=False, floor=0.0),
    replace(MODELLED, name="TPE, rungs", race=1),
    MODELLED,
    DEFAULT,
)


@dataclass(frozen=True)
class Options:
    """What is replayed."""

    table: Path = TABLE
    replays: Path = REPLAYS
    figure: Path = Path("docs/figures/search_replay.png")
    repetitions: int = 30
    trials: int = max(CHECKPOINTS)
    workers: int = 2


def main(options: Options) -> None:
    """Replay every setting; write the means over methods and repetitions, with bands, and draw them."""
    table = read_table(options.table)
    jobs = [(table, setting, options.repetitions, options.trials) for setting in SETTINGS]
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn"), quiet) as pool:
        found = list(itertools.chain.from_iterable(pool.map(_replay, jobs)))
    summary = summarized(pd.DataFrame(found))
    summary.to_csv(options.replays, index=False, float_format="%.6g", lineterminator="\n")
    print("\n".join(bought(summary)))
    draw(summary, options.figure)


def _replay(job: tuple[Mapping[str, Sequence[Line]], Setting, int, int]) -> list[dict[str, Any]]:
    return list(replayed(*job))


def quiet() -> None:
    """Without what Optuna says of its experimental parts."""
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def summarized(found: pd.DataFrame) -> pd.DataFrame:
    """By setting and trials: means over methods, of these the mean over repetitions and what 90 % of them lie in."""
    each = found.groupby(["setting", "trials", "repetition"], sort=False)[
        ["training", "work", "regret", "hypervolume"]
    ].mean()
    lines = []
    for (setting, trials), group in each.groupby(level=[0, 1], sort=False):
        line = {"setting": setting, "trials": trials, **group.mean().to_dict()}
        for name in ("regret", "hypervolume"):
            line |= {f"{name}_low": group[name].quantile(0.05), f"{name}_high": group[name].quantile(0.95)}
        lines.append(line)
    return pd.DataFrame(lines)


def at_work(summary: pd.DataFrame, setting: str, work: float, column: str = "regret") -> float:
    """What a setting has reached at so much counted work, between its checkpoints by straight lines."""
    mine = summary[summary["setting"] == setting].sort_values("work")
    return float(np.interp(work, mine["work"], mine[column]))


def bought(summary: pd.DataFrame) -> list[str]:
    """What more trials buy by default, as lines of a table in Markdown."""
    mine = summary[(summary["setting"] == DEFAULT.name) & summary["trials"].isin((8, 16, 32, 64))]
    least = mine["work"].iloc[0]
    return [
        f"| {one.trials} | {one.regret:.3f} ({one.regret_low:.3f} to {one.regret_high:.3f}) | {one.hypervolume:.3f} | "
        f"{one.work / least:.1f} |"
        for one in mine.itertuples()
    ]


def claims(summary: pd.DataFrame) -> list[str]:
    """What docs/search.md says of the replays."""

    def at(setting: str, trials: int, column: str = "regret") -> float:
        chosen = (summary["setting"] == setting) & (summary["trials"] == trials)
        return float(summary.loc[chosen, column].iloc[0])

    def share(one: str, other: str, trials: int, column: str) -> float:
        return at(one, trials, column) / at(other, trials, column)

    beside = {n: at_work(summary, DEFAULT.name, at(TODAY.name, n, "work")) / at(TODAY.name, n) for n in CHECKPOINTS}
    saved = {n: 1 - share(DEFAULT.name, "sobol, race", n, "training") for n in (8, 16, 48)}
    lost = [1 - share(DEFAULT.name, "sobol, race", n, "hypervolume") for n in CHECKPOINTS if n >= min(saved)]
    return [
        f"At the work of 24 of its trials the default has {beside[24]:.2f} times its regret, at that of 16 trials "
        f"{beside[16]:.2f}, of 12 trials {beside[12]:.2f} and of 8 trials {beside[8]:.1f} times. 48 trials of the "
        f"default cost {share(DEFAULT.name, TODAY.name, 48, 'work'):.2f} times the work of 48 of its trials and have "
        f"{share(DEFAULT.name, TODAY.name, 48, 'regret'):.2f} times the regret",
        f"48 trials of a Sobol sequence have a regret of {at('sobol', 48):.3f}, with a race of "
        f"{at('sobol, race', 48):.3f}; with rungs it is {at('sobol, rungs', 48):.3f} without a race and "
        f"{at(DEFAULT.name, 48):.3f} with one, for {share(DEFAULT.name, 'sobol, rungs', 48, 'work') - 1:.0%} more work",
        f"save {saved[8]:.0%} of the training work of 8 trials, {saved[16]:.0%} of 16 and {saved[48]:.0%} of 48, and "
        f"cost {min(lost):.1%} to {max(lost):.1%} of the hypervolume",
        f"leads at 8 trials ({at(MODELLED.name, 8):.3f} against {at(DEFAULT.name, 8):.3f}), then falls behind the "
        f"sequence ({at(MODELLED.name, 48):.3f} against {at(DEFAULT.name, 48):.3f} at 48)",
    ]


def watched(table: Mapping[str, Sequence[Line]]) -> list[str]:
    """What docs/search.md says of the cost of rungs."""
    part: dict[str, float] = {}
    whole: dict[str, float] = {}
    for method, lines in table.items():
        runs = [run for line in lines for run in line.runs]
        part[method] = math.fsum(run["rung_flops"] for run in runs)
        whole[method] = part[method] + math.fsum(run["unlearn_flops"] + run["score_flops"] for run in runs)
    shares = [part[method] / whole[method] for method in table]
    pooled, ratio = sum(part.values()) / sum(whole.values()), whole["npo"] / whole["gradient_ascent"]
    return [
        f"{pooled:.1%} of what trials compute ({min(shares):.0%} to {max(shares):.0%} by method)",
        f"a trial of NPO computes {ratio:.1f} times what one of gradient ascent does",
    ]


def draw(summary: pd.DataFrame, path: Path) -> None:
    """Regret and hypervolume over counted work."""
    titles = {"regret": "Regret on the test half", "hypervolume": "Hypervolume of the validation half"}
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for number, (setting, mine) in enumerate(summary.groupby("setting", sort=False)):
            color, work = f"C{number}", mine["work"] / 1e12
            bold = setting in (TODAY.name, DEFAULT.name)
            axis.plot(work, mine[column], "o-", color=color, label=setting, lw=2.2 if bold else 1, ms=3)
            if bold:
                axis.fill_between(work, mine[f"{column}_low"], mine[f"{column}_high"], color=color, alpha=0.15, lw=0)
        axis.set(xlabel="Counted work of a method (TFLOP)", title=title)
    axes[0].set(ylim=(0, None))
    axes[1].legend(fontsize=8)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main(tyro.cli(Options))
