"""The table of finished trials, searches replayed on it, and what the docs say of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from study.engine.optuna_search import Proposer
from study.metrics.objectives import DIRECTIONS
from tests import ROOT
from tests.cost.search_replay import (
    DEFAULT,
    MODELLED,
    REPLAYS,
    TODAY,
    Line,
    Replay,
    Setting,
    at_work,
    bought,
    claims,
    quiet,
    read_table,
    replayed,
    watched,
)  # fmt: skip
from tests.cost.search_table import METHODS, SEEDS, defaults

FIRST = Path(__file__).with_name("search_replay_first.json")
"""Twelve trials of NPO as they were replayed, with the default setting and with one that asks TPE after six."""


def first(table: Mapping[str, Sequence[Line]]) -> list[dict[str, Any]]:
    """What is compared with the file."""
    return [line for setting in (DEFAULT, MODELLED) for line in replayed({"npo": table["npo"]}, setting, 1, 12)]


@pytest.fixture(scope="module")
def table() -> dict[str, list[Line]]:
    quiet()
    return read_table()


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    return pd.read_csv(REPLAYS)


def test_the_table_has_a_few_hundred_trials_of_four_methods(table: dict[str, list[Line]]) -> None:
    assert tuple(table) == METHODS
    assert sum(len(line.runs) for lines in table.values() for line in lines) > 300
    assert all(len(line.runs) == SEEDS for lines in table.values() for line in lines)
    for method, lines in table.items():
        for line in lines:
            for run in line.runs:
                values = [run[f"{at}_{name}"] for at in ("validation", "test", "rung_1") for name in DIRECTIONS]
                assert all(0.0 <= value <= 1.0 for value in values), method
                assert 0 < run["rung_flops"] < run["score_flops"]


def test_watching_costs_less_than_a_twentieth(table: dict[str, list[Line]]) -> None:
    """Of all that the trials of the table computed, over all methods."""
    runs = [run for lines in table.values() for line in lines for run in line.runs]
    watched = math.fsum(run["rung_flops"] for run in runs)
    assert watched < 0.05 * math.fsum(run["unlearn_flops"] + run["score_flops"] + run["rung_flops"] for run in runs)


@pytest.mark.parametrize("method", METHODS)
def test_a_point_of_the_table_has_its_own_result(method: str, table: dict[str, list[Line]], tmp_path: Path) -> None:
    """And the default is one of them."""
    search = Replay(method, defaults()[method], table[method], DEFAULT, tmp_path, 0, (0, 1, 2))
    for line in table[method]:
        assert search.job("replay", line.params).line is line
    first = Proposer(search).propose("replay", 0)
    default = search.job("replay", first.params).line
    assert default.params.items() <= first.params.items()


def test_a_replay_is_the_same_every_time(table: dict[str, list[Line]]) -> None:
    """With a regret that is not below 0, and work that grows."""
    some = {"npo": table["npo"]}
    found = list(replayed(some, DEFAULT, 2, 12))
    assert found == list(replayed(some, DEFAULT, 2, 12))
    assert all(one["regret"] >= 0 for one in found)
    for repetition in range(2):
        work = [one["work"] for one in found if one["repetition"] == repetition]
        assert work == sorted(work)


def test_a_search_draws_stops_and_races_as_it_did(table: dict[str, list[Line]]) -> None:
    """Whoever means to change that writes the file anew: `python -m tests.cost.test_search_replay`."""
    assert first(table) == json.loads(FIRST.read_text())


def noiseless(line: Line) -> Line:
    """A line of which every seed and both halves say the same."""
    same = {f"{at}_{name}": line.runs[0][f"test_{name}"] for at in ("validation", "test") for name in DIRECTIONS}
    return Line(line.params, tuple({**run, **same} for run in line.runs))


def test_without_noise_a_random_search_finds_the_best_in_the_end(table: dict[str, list[Line]]) -> None:
    planted = {"npo": [noiseless(line) for line in table["npo"]]}
    found = [one["regret"] for one in replayed(planted, Setting("random", "random"), 1, 48)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.02


def test_the_docs_say_what_was_measured(summary: pd.DataFrame) -> None:
    for page in ("README.md", "docs/search.md"):
        text = (ROOT / page).read_text()
        assert all(line in text for line in bought(summary)), page


def test_the_sentences_on_searching_are_those_of_the_replays(
    summary: pd.DataFrame, table: dict[str, list[Line]]
) -> None:
    text = " ".join((ROOT / "docs/search.md").read_text().split())
    for sentence in (*claims(summary), *watched(table)):
        assert sentence in text


def test_what_is_claimed_of_the_default(summary: pd.DataFrame) -> None:
    """Half of the regret at the work of 24 and more trials of the search as it was before."""
    before = summary[(summary["setting"] == TODAY.name) & (summary["trials"] >= 24)]
    assert len(before)
    for work, regret in zip(before["work"], before["regret"], strict=True):
        assert at_work(summary, DEFAULT.name, work) < 0.5 * regret


def test_what_is_claimed_of_rungs(summary: pd.DataFrame) -> None:
    """A long search is spared two fifths of its training, and loses less than a fiftieth of the hypervolume."""
    at = summary[summary["trials"] == 48].set_index("setting")
    watched, whole = at.loc[DEFAULT.name], at.loc["sobol, race"]
    assert watched["training"] < 0.6 * whole["training"]
    assert watched["hypervolume"] > 0.98 * whole["hypervolume"]


if __name__ == "__main__":
    quiet()
    FIRST.write_text(json.dumps(first(read_table()), indent=1) + "\n")
