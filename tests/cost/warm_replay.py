"""Warm searches beside cold ones, replayed: `python -m tests.cost.warm_replay`.

Two tables of finished trials are of worlds that share no person, picture or weight. In each direction one is the
earlier study, of which a search takes nothing, the winner, or the winner and all trials: TPE is told of as many as
predict, from the seventh trial on. The smaller table, of two methods, is made by

    python study/run.py tiny --model tiny:seed=1 --benchmark synthetic:seed=1 --seed 1 --reference-seeds 1 \\
        --methods prompting --trials 1 --study-dir runs/other
    python -m tests.cost.search_table --study-dir runs/other --world 1 --references 1 --seeds 1 --draws 8 \\
        --methods npo vkd:variant=features --table tests/cost/search_table_other.csv
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from study.core.sampling import STARTUP
from study.core.specs import parameters
from study.engine.optuna_search import Prior, Proposer, Told
from tests.cost.search_replay import DEFAULT, Line, Replay, quiet, read_table
from tests.cost.search_table import TABLE, defaults

OTHER = TABLE.with_name("search_table_other.csv")
"""Of another world, with as early a base model."""
STARTS = ("cold", "winner", "told")
CHECKPOINTS = (2, 4, 6, 8, 12, 16, 24)
"""Trials after which a winner is named."""


@dataclass
class WarmReplay(Replay):
    """The search of one method on the lines of a table, after a study of another world."""

    earlier: Sequence[Line] = ()
    """All that the earlier study tried; its own seed is the first."""
    start: str = "cold"

    def initial_params(self, label: str, number: int) -> Mapping[str, Any] | None:
        """The default, then the earlier winner."""
        if number != 1 or self.start == "cold":
            return super().initial_params(label, number)
        won = min(self.earlier, key=lambda line: line.distance(0, "validation"))
        return {**parameters(self.default), **won.params}

    def priors(self, label: str, number: int) -> Sequence[Prior]:
        """Every line of the earlier study."""
        known = [(line.params, line.values(0, "validation")) for line in self.earlier if self.start == "told"]
        return [Prior(params, Told(values, self.setting.floor - values["utility"])) for params, values in known]


@dataclass(frozen=True)
class Options:
    """What is replayed."""

    repetitions: int = 6
    trials: int = max(CHECKPOINTS)
    earlier: int = 99
    """The largest number of trials of the earlier study."""


def replayed(
    lines: Sequence[Line], method: str, earlier: Sequence[Line], start: str, seed: int, trials: int
) -> Iterator[dict[str, Any]]:
    """The regret on the test half after some trials of one search, and how many earlier trials it had been told."""
    seeds = len(lines[0].runs)
    order = tuple(random.Random(seed).sample(range(seeds), seeds))
    setting = replace(DEFAULT, race=DEFAULT.race if seeds > 1 else 1, startup=STARTUP if start == "told" else 0)
    with tempfile.TemporaryDirectory() as folder:
        search = WarmReplay(
            method, defaults()[method], lines, setting, Path(folder), seed, order, trials, earlier=earlier, start=start
        )
        proposer = Proposer(search)
        for number in range(trials):
            proposal = proposer.propose("replay", number)
            search.execute(search.job("replay", proposal.params), "replay", number, 0.0)
            if number + 1 in CHECKPOINTS:
                winner, _ = search.named(search.keys)
                regret = winner.truth - min(line.truth for line in lines)
                yield {"trials": number + 1, "regret": regret, "told": proposal.priors}


def main(options: Options) -> None:
    """Print the mean regret of each start, in both directions, and how many earlier trials were told."""
    quiet()
    tables, found = (read_table(), read_table(OTHER)), []
    for (new, old), method in itertools.product((tables, tables[::-1]), tables[1]):
        earlier, about = old[method][: options.earlier], {"method": method, "lines": len(new[method])}
        for start, seed in itertools.product(STARTS, range(options.repetitions)):
            lines = replayed(new[method], method, earlier, start, seed, options.trials)
            found += [{**about, "start": start, **line} for line in lines]
    table = pd.DataFrame(found)
    for name in ("regret", "told"):
        means = table.groupby(["lines", "method", "start", "trials"], sort=False)[name].mean().unstack("trials")
        print(f"{name}\n{means.round(3).to_string()}")


if __name__ == "__main__":
    main(tyro.cli(Options))
