"""The table of a second world, and searches that begin with what another world found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from study.engine.optuna_search import Proposer
from tests.cost.search_replay import DEFAULT, Line, quiet, read_table
from tests.cost.search_table import defaults
from tests.cost.warm_replay import OTHER, WarmReplay

Table = dict[str, list[Line]]


@pytest.fixture(scope="module")
def tables() -> tuple[Table, Table]:
    quiet()
    return read_table(), read_table(OTHER)


def distances(lines: list[Line]) -> dict[str, float]:
    return {str(sorted(line.params.items())): line.distance(0, "validation") for line in lines}


@pytest.mark.parametrize(("method", "tau"), [("npo", 0.83), ("vkd:variant=features", 0.78)])
def test_two_worlds_rank_the_points_that_both_have_alike(method: str, tau: float, tables: tuple[Table, Table]) -> None:
    """As the docs say: of the pairs, those in the same order less those in the other."""
    first, second = (distances(table[method]) for table in tables)
    both = sorted(first.keys() & second.keys())
    signs = [np.sign(np.subtract.outer(v, v))[np.triu_indices(len(both), 1)] for v in
             (np.array([world[key] for key in both]) for world in (first, second))]  # fmt: skip
    assert len(both) == 9
    assert float(np.mean(signs[0] * signs[1])) == pytest.approx(tau, abs=0.005)


@pytest.mark.parametrize("start", ["winner", "told"])
def test_the_winner_of_the_other_world_comes_second(start: str, tables: tuple[Table, Table], tmp_path: Path) -> None:
    """And all of its lines may be told, if they are to be."""
    new, old = tables[0]["npo"], tables[1]["npo"]
    search = WarmReplay("npo", defaults()["npo"], new, DEFAULT, tmp_path, 0, (0, 1, 2), 4, earlier=old, start=start)
    proposer = Proposer(search)
    for number in range(2):
        proposal = proposer.propose("replay", number)
        search.execute(search.job("replay", proposal.params), "replay", number, 0.0)
    assert proposal.params == min(old, key=lambda line: line.distance(0, "validation")).params
    assert len(search.priors("replay", 2)) == (len(old) if start == "told" else 0)
