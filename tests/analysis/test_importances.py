"""Importances, all trials in one figure, the gain on the test half and rank correlations, each where it is planted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.importances import importances
from analysis.plots import Plot
from analysis.searched import Choices, Domain, Range, Searched
from analysis.sections import hyperparameters, rankings, search
from analysis.study_folder import read
from analysis.tables import Table
from study.core.files import write_json
from tests.helpers.planted import Model, Planter

SPACE: dict[str, Domain] = {
    "learning_rate": Range(1e-4, 1e-2, log=True), "steps": Range(20, 80, log=True, whole=True),
    "layers": Choices(("all", "last", "projector")), "augment": Range(0.0, 1.0), "weight": Range(0.1, 10.0, log=True),
}  # fmt: skip


def drawn(count: int, costs: Callable[[Mapping[str, Any], np.random.Generator], tuple[float, float]]) -> Searched:
    """So many trials at random, with the forget gap and the utility that their hyper-parameters give them."""
    random = np.random.default_rng(count)
    params: list[dict[str, Any]] = [
        {"learning_rate": 10 ** random.uniform(-4, -2), "steps": int(random.integers(20, 81)),
         "layers": str(random.choice(["all", "last", "projector"])), "augment": random.random(),
         **({"weight": 10 ** random.uniform(-1, 1)} if number % 2 else {})}
        for number in range(count)
    ]  # fmt: skip
    gap, utility = zip(*(costs(one, random) for one in params), strict=True)
    table = pd.DataFrame({
        "number": range(count), "key": [f"t{n}" for n in range(count)], "state": "complete", "duplicate": False,
        "default": False, "warm": False, "reason": "", "forget_gap": gap, "utility": utility,
        "distance": [math.hypot(g, 1 - u) for g, u in zip(gap, utility, strict=True)],
    })  # fmt: skip
    return Searched("npo", 20, SPACE, True, table, params, math.nan, 0)


def planted(one: Mapping[str, Any], random: np.random.Generator) -> tuple[float, float]:
    """The gap hangs on the learning rate, the utility on the layers, nothing on the rest."""
    rate = math.log10(one["learning_rate"]) + 3
    noise = 0.01 * random.normal(size=2)
    return 0.02 + 0.4 * rate**2 + abs(noise[0]), 0.95 - 0.02 * (one["layers"] != "last") + noise[1] / 10


def test_what_is_planted_is_important() -> None:
    """For each objective what it hangs on, for the distance what moves it more, also within the best quarter."""
    found = importances(drawn(80, planted), ["forget_gap", "utility"]).set_index("name")
    assert found["forget_gap"].idxmax() == found["distance"].idxmax() == found.index[0] == "learning_rate"
    assert found["utility"].idxmax() == "layers"
    assert found["within"].notna().all()
    numbers = found.drop(columns="beyond_chance").astype(float)
    assert numbers.sum().tolist() == pytest.approx([1.0] * len(numbers.columns))
    assert found["beyond_chance"].to_dict() == {name: name == "learning_rate" for name in SPACE}


@pytest.mark.slow
def test_what_hangs_on_nothing_is_seldom_beyond_chance() -> None:
    """In about one search of twenty."""
    searches = [drawn(count, lambda one, random: (random.random(), 0.9)) for count in range(24, 44)]
    found = [importances(one, ["forget_gap", "utility"])["beyond_chance"].any() for one in searches]
    assert sum(found) <= 4


def test_few_trials_have_no_importance() -> None:
    """And where there are a few more, none within the best quarter."""
    assert importances(drawn(19, planted), ["forget_gap", "utility"]).empty
    some = importances(drawn(20, planted), ["forget_gap", "utility"])
    assert len(some) == len(SPACE)
    assert some["within"].isna().all()


# ---- in a study ----------------------------------------------------------------------------------------------------
LEVELS = [0.3 + 0.02 * n for n in range(24)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A method whose forget gap grows with its strength, 24 trials, the default the strongest; seed 1 of the winner;
    winner and default are scored on the test half."""
    planter = Planter(tmp_path_factory.mktemp("tuned"), noise=0.05)
    planter.study(["npo"], [20], trials=24, startup_trials=4)
    planter.yardsticks(20, attacked=False, references=[Model(), Model()])
    order = [23, *range(23)]
    for number, strength in enumerate(order):
        model = Model(forget=LEVELS[strength], test=LEVELS[strength])
        key = planter.trial("npo", 20, model, report=strength in (0, 5, 9, 14, 18, 23), strength=float(strength))
        params = {"strength": 0.1 * (strength + 1), "forget_ratio": 20, **({"layers": "all"} if number % 3 else {})}
        path = planter.root / "search" / "npo" / f"{number:04d}.json"
        write_json(path, {"number": number, "ratio": 20, "params": params, "trial": key, "default": number == 0})
        if strength == 0:
            again = planter.trial("npo", 20, model, report=True, seed=1, strength=0.0)
            write_json(planter.root / "winners.json", {"npo": {"20": {"trials": [key, again]}}})
    return planter.root


def test_the_gain_on_the_test_half_has_an_interval(root: Path) -> None:
    """It covers the planted 0.46, over the one seed of the default and two of the winner."""
    line = search.tuning(read(root)).iloc[0]
    assert line["test_gain_low"] < 0.46 < line["test_gain_high"]
    assert line["test_gain_low"] > 0
    assert (line["default_seeds"], line["winner_seeds"]) == (1, 2)
    shown = search.tuning_table(read(root)).shown.iloc[0]
    assert shown["seeds"] == "1 and 2"
    assert shown["gain on the test half"].startswith("0.4")


def test_a_default_that_nobody_scored_has_no_gain_there(root: Path, tmp_path: Path) -> None:
    """Of a study of an earlier version; and a default that won has gained nothing."""
    planter = Planter(tmp_path)
    planter.study(["npo", "vkd"], [20])
    planter.yardsticks(20, attacked=False)
    default, better = (planter.trial("npo", 20, Model(forget=f), report=f < 0.5, strength=f) for f in (0.7, 0.4))
    same = planter.trial("vkd", 20, Model(), report=True)
    for number, (method, key) in enumerate([("npo", default), ("vkd", same), ("npo", better)]):
        planter.proposal(method, number // 2, 20, key)
    write_json(tmp_path / "winners.json", {m: {"20": {"trials": [k]}} for m, k in (("npo", better), ("vkd", same))})
    shown = search.tuning_table(read(tmp_path)).shown.set_index("method")
    assert shown["gain on the test half"].to_dict() == {"NPO": "n/a", "VKD": "0.00"}
    assert shown["seeds"].to_dict() == {"NPO": "0 and 1", "VKD": "the default won"}


def test_the_section_on_hyper_parameters(root: Path) -> None:
    """A table of importances; a figure with an axis for each, the one that not every trial uses last."""
    table, plot = hyperparameters.parts(read(root))
    assert isinstance(table, Table)
    assert isinstance(plot, Plot)
    assert table.raw[["method", "name"]].to_numpy().tolist() == [["npo", "strength"]]  # `layers` has a single value
    assert plot.name == "parallel_20"
    assert len(plot.data) == 24
    best = plot.data.sort_values("rank").iloc[0]
    assert (best["rank"], best["value"], best["place"]) == (0.0, pytest.approx(0.1), 0.0)
    assert best["ends"] == "0.1|2.4"


def test_axes_of_what_not_every_trial_uses_come_last() -> None:
    data = hyperparameters.parallel_data([drawn(24, planted)])
    assert list(data["hyperparameter"].unique())[-1] == "weight"
    assert data.loc[data["hyperparameter"] == "weight", "place"].isna().sum() == 12
    assert data["place"].between(0, 1).sum() == 5 * 24 - 12
    figure = hyperparameters.draw_parallel(pd.concat([data, data.assign(method="vkd")]), ["npo", "vkd", "none"])
    panels = [axis for axis in figure.axes if axis.get_title(loc="left")]
    assert [axis.get_title(loc="left") for axis in panels] == ["NPO", "VKD"]
    assert all(len(axis.lines) == 24 + 5 for axis in panels)  # a line for each trial, and one for each axis


def test_the_ranking_repeats_where_it_is_planted(root: Path) -> None:
    """Six settings far apart: the same order on both halves; three are too few to say so of the better half."""
    raw = rankings.rankings(read(root))
    assert raw[["ratio", "among", "models"]].to_numpy().tolist() == [["20", rankings.ALL, 6], ["20", "NPO", 6]]
    assert raw["tau"].tolist() == pytest.approx([1.0, 1.0])
    [told] = rankings.sentences(raw)
    assert told.startswith("At 20 %, the ranking as a whole repeats from the validation to the test half")


@pytest.mark.parametrize(
    ("tau", "p", "told"),
    [
        (0.9, 0.01, "At 20 %, the ranking in the good region repeats from the validation to the test half"),
        (0.2, 0.6, "the validation and the test half are not shown to rank the models alike in the good region"),
        (-0.6, 0.03, "the validation and the test half rank the models the other way round in the good region"),
    ],
)
def test_what_a_correlation_means(tau: float, p: float, told: str) -> None:
    lines = [
        {"ratio": "20", "compared": "halves", "among": among, "models": n, "tau": t, "p": q}
        for among, n, t, q in ((rankings.ALL, 12, 0.9, 0.001), (rankings.BEST, 6, tau, p), ("NPO", 5, 0.1, 0.9))
    ]
    [sentence] = rankings.sentences(pd.DataFrame(lines))
    assert told in sentence
    assert f"Kendall's tau {tau:.2f}, 6 models, p = {p:.2f}" in sentence
    assert (rankings.REMEDY in sentence) == (p > 0.05 or tau < 0)


@pytest.mark.slow
def test_methods_that_rank_otherwise_at_another_ratio(tmp_path: Path) -> None:
    planter = Planter(tmp_path)
    methods = [f"method_{n}" for n in range(5)]
    planter.study(methods, [10, 20])
    winners: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for ratio in (10, 20):
        planter.yardsticks(ratio, attacked=False)
        for n, method in enumerate(methods):
            level = 0.3 + 0.1 * (n if ratio == 10 else 4 - n)
            key = planter.trial(method, ratio, Model(forget=level, test=level), report=True)
            planter.proposal(method, ratio // 10 - 1, ratio, key)
            winners[method][str(ratio)] = {"trials": [key]}
    write_json(tmp_path / "winners.json", winners)
    raw = rankings.rankings(read(tmp_path))
    line = raw[raw["compared"] == "ratios"].iloc[0]
    assert (line["ratio"], line["models"], line["tau"]) == ("10 and 20", 5, pytest.approx(-1.0))
    assert "Methods are not shown to rank alike at 10 and 20 %" in " ".join(rankings.sentences(raw))
