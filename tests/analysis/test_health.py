"""Health checks of a search: each is said where it is planted, with its remedy, and not where all is well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis import health
from analysis.health import Settings, checks, ends, learned
from analysis.searched import Choices, Domain, Range, Searched, searches
from analysis.sections import health as section
from analysis.study_folder import read
from study.core.files import read_json, write_json
from tests.helpers.planted import Model, Planter

RATE = Range(1e-4, 1e-2, log=True)
SETTINGS = Settings(trials=24, ratios=1)


def search(
    distances: Sequence[float],
    params: Sequence[Mapping[str, Any]] | None = None,
    space: Mapping[str, Domain] | None = None,
    *,
    method: str = "npo",
    states: Mapping[int, str] | None = None,
    utility: Mapping[int, float] | None = None,
    noise: float = 0.001,
    told: bool = True,
    startup: float = 8,
) -> Searched:
    """A search whose trials have these distances, the first of which is the default; rates in the middle of their
    range. From the ninth on they are drawn from results."""
    count, states, utility = len(distances), states or {}, utility or {}
    table = pd.DataFrame({
        "method": method, "ratio": 20, "number": range(count), "key": [f"t{n}" for n in range(count)],
        "duplicate": False, "state": [states.get(n, "complete") for n in range(count)],
        "distance": [d if states.get(n, "complete") == "complete" else math.nan for n, d in enumerate(distances)],
        "utility": [utility.get(n, 0.9) for n in range(count)], "forget_gap": 0.1,
        "default": [n == 0 for n in range(count)], "warm": False,
        "reason": ["needs strangers" if states.get(n) == "failed" else "" for n in range(count)],
    })  # fmt: skip
    middle = [{"learning_rate": 1e-3 * 1.05**n} for n in range(-(count // 2), count - count // 2)]
    return Searched(method, 20, space or {"learning_rate": RATE}, told, table, params or middle, noise, 3, startup)


FALLING = [0.9 - 0.03 * n for n in range(24)]


def said(one: Searched, settings: Settings = SETTINGS) -> str:
    return " ".join(checks([one], settings))


def test_nothing_is_said_of_a_healthy_search() -> None:
    """It learned, lost nothing, stayed inside its range, and its trials differ by more than its seeds."""
    assert checks([search(FALLING)], SETTINGS) == []


def test_a_search_that_learned_nothing() -> None:
    rising = [0.2 + 0.01 * n for n in range(24)]
    assert "not shown to have learned anything: its 16 later trials" in said(search(rising))
    assert "than the 7 drawn before any" in said(search(rising))  # without the default
    assert "--trials 48" in said(search(rising))


def test_a_search_that_models_nothing_is_not_told_to_learn() -> None:
    """A Sobol sequence covers the space; that no model was asked for is no fault."""
    rising = [0.2 + 0.01 * n for n in range(24)]
    assert "not shown to have learned" in said(search(rising))
    assert "learned" not in said(search(rising, startup=math.inf))


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan]), min_size=12, max_size=30))
def test_one_search_is_tested_by_the_rank_test(distances: list[float]) -> None:
    """For one search the test over all of them is Wilcoxon's (Mann and Whitney's), ties and losses included."""
    one = search([0.5, *distances], states={n + 1: "diverged" for n, d in enumerate(distances) if math.isnan(d)})
    costs = np.nan_to_num(np.array(distances), nan=9.0)
    found = learned([one])
    assert (found.first, found.later) == (7, len(distances) - 7)
    if len(set(costs)) > 1:
        expected = stats.mannwhitneyu(
            costs[7:], costs[:7], alternative="less", use_continuity=False, method="asymptotic"
        )
        assert found.p == pytest.approx(expected.pvalue)


def test_what_one_search_cannot_tell_several_can() -> None:
    weak = [0.5, 0.5, 0.3, 0.45, 0.4, 0.25, 0.35]
    one = learned([search(weak, startup=4)]).p
    assert learned([search(weak, startup=4)] * 12).p < health.CHANCE < one


def test_each_search_has_its_own_first_trials() -> None:
    """One that an earlier study told of its trials draws from results sooner than another."""
    found = learned([search(FALLING, startup=3), search(FALLING, startup=20)])
    assert (found.first, found.later) == (2 + 19, 21 + 4)


def test_losses_are_counted_with_what_to_do() -> None:
    """The best trial's rate is gentler than that of most trials that were lost."""
    params = [{"learning_rate": 1e-3 if n % 2 else 5e-3} for n in range(24)]
    states = {n: "diverged" if n % 4 else "failed" for n in range(0, 20, 2)}
    text = said(search(FALLING, params, states=states, method="npo:modality=text"))
    assert "NPO (text) at 20 % 10 of 24 (5 diverged, 5 failed)" in text
    assert "gentler is npo:modality=text,learning_rate=0.001 in --methods" in text
    assert "Most of the failed ones say: needs strangers." in text


def test_a_collapsed_model_is_lost_and_one_that_was_stopped_is_not() -> None:
    """Stopped at a rung because others were ahead: that is what rungs are for."""
    assert "8 of 24 (8 collapsed)" in said(search(FALLING, utility=dict.fromkeys(range(8), 0.4)))
    assert "usable" not in said(search(FALLING, states=dict.fromkeys(range(1, 13), "stopped")))


def test_few_losses_are_no_news() -> None:
    assert "usable" not in said(search(FALLING, states=dict.fromkeys(range(7), "diverged")))


@pytest.mark.parametrize(
    ("at", "end", "bound"), [(9e-3, "upper", "0.01"), (1.1e-4, "lower", "0.0001")], ids=["upper", "lower"]
)
def test_best_trials_at_the_end_of_a_range(at: float, end: str, bound: str) -> None:
    params = [{"learning_rate": at if n > 18 else 1e-3} for n in range(24)]
    text = said(search(FALLING, params))
    assert f"5 of the 6 best trials of NPO at 20 % have learning_rate at its {end} end ({bound}): widen it" in text
    assert "--methods-from" in text


def test_what_is_searched_absolutely_is_widened_in_its_file() -> None:
    space = {"beta": Range(0.1, 2.0)}
    text = said(search(FALLING, [{"beta": 1.99} for _ in range(24)], space, method="npo:modality=text"))
    assert "have beta at its upper end (2): widen it. Its range is in search_spaces/npo.py." in text


@pytest.mark.parametrize("domain", [Choices((1, 2, 3)), Range(1, 3, whole=True)], ids=["choices", "few whole numbers"])
def test_a_choice_has_no_end(domain: Domain) -> None:
    assert ends(search(FALLING, [{"repeats": 3} for _ in range(24)], {"repeats": domain})) == []


def test_ends_that_no_study_told_are_none() -> None:
    """What was proposed is all that is known of the range then, and the outermost proposal is no end of it."""
    params = [{"learning_rate": 9e-3} for _ in range(24)]
    assert ends(search(FALLING, params, told=True))
    assert ends(search(FALLING, params, told=False)) == []


def test_only_a_few_ends_have_a_sentence() -> None:
    space = {f"weight_{n}": Range(0.0, 1.0) for n in range(7)}
    found = checks([search(FALLING, [dict.fromkeys(space, 0.99) for _ in range(24)], space)], SETTINGS)
    assert sum("widen it" in sentence for sentence in found) == 4
    assert "The best trials gather at 3 more ends of ranges; the report lists them." in found


def test_uniform_trials_seldom_warn_of_an_end() -> None:
    """As many ranges as VKD has, drawn without any effect: in vain in about one study of ten."""
    random = np.random.default_rng(0)
    space = {f"weight_{n}": Range(0.0, 1.0) for n in range(12)}
    studies = [
        search(FALLING, [{name: random.random() for name in space} for _ in range(24)], space) for _ in range(200)
    ]
    assert np.mean([bool(ends(one)) for one in studies]) < 0.15


def test_seeds_that_differ_as_much_as_trials() -> None:
    """The better half of 24 distances 0.03 apart has a standard deviation of 0.108."""
    assert "Seeds of one setting" not in said(search(FALLING, noise=0.1))
    assert "NPO at 20 % (0.110 against 0.108)" in said(search(FALLING, noise=0.11))


def test_too_few_trials_for_the_hyper_parameters() -> None:
    space = {name: Range(0.1, 1.0) for name in "abcdefghi"}
    params = [dict.fromkeys(space, 0.4 + 0.01 * n) for n in range(24)]
    text = said(search(FALLING, params, space), SETTINGS._replace(ratios=2))
    assert "NPO has 24 for 9; 10 for each are usual" in text
    assert "--trials 180" in text  # at both ratios
    assert "npo:a=0.63 in --methods" in text  # as in the best trial
    assert "Too few" not in said(search(FALLING, params, {name: space[name] for name in "abcdefgh"}))


# ---- from a study folder -------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six trials of one method, from two seeds each, in a study that says what it could propose."""
    planter = Planter(tmp_path)
    planter.study(["npo:modality=text"], [20], trials=6, sampler="tpe", startup_trials=3)
    planter.yardsticks(20, attacked=False)
    for number in range(6):
        model = Model(forget=0.4 + 0.05 * number, test=0.4 + 0.05 * number)
        key = planter.trial("npo:modality=text", 20, model, strength=number)
        planter.trial("npo:modality=text", 20, Model(forget=0.5, test=0.5), seed=1, strength=number)
        path = tmp_path / "search" / "npo:modality=text" / f"{number:04d}.json"
        params = {"learning_rate": 1e-3 * (number + 1), "modality": "text", "forget_ratio": 20}
        write_json(path, {"number": number, "ratio": 20, "params": params, "trial": key})
    return tmp_path


def test_a_search_as_the_checks_read_it(folder: Path) -> None:
    """Without what was set on the command line, and without a word of the study its range is what was proposed."""
    [one] = searches(read(folder))
    assert one.space == {"learning_rate": Range(0.001, 0.006, log=True)}
    assert not one.told
    assert one.trials["distance"].tolist() == pytest.approx([0.1 + 0.05 * n for n in range(6)])
    assert one.trials["default"].tolist() == [True, *[False] * 5]
    apart = [0.05 * n - 0.1 for n in range(6)]  # each seed 1 has a distance of 0.2
    assert one.noise == pytest.approx(math.sqrt(sum(d**2 / 2 for d in apart) / 6))
    assert one.seeds == 12


def test_the_ranges_that_a_study_writes_down_are_used(folder: Path) -> None:
    stored = {"name": "FloatDistribution", "attributes": {"low": 1e-4, "high": 1e-2, "log": True, "step": None}}
    other = {"name": "CategoricalDistribution", "attributes": {"choices": ["text", "all"]}}
    spaces = {"npo:modality=text": {"learning_rate": stored, "modality": other}}
    write_json(folder / "study.json", {**read_json(folder / "study.json"), "spaces": spaces})
    [one] = searches(read(folder))
    assert one.space == {"learning_rate": RATE}
    assert one.told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "startup", "first"),
    [
        ("tpe", 3, 3),
        ("tpe", 0, 6),
        ("auto", 2, 2),
        ("auto", 0, 48),
        ("nsga2", 3, 12),
        ("sobol", 3, math.inf),
        ("random", 0, math.inf),
    ],
)
def test_modelling_begins_where_the_sampler_begins(sampler: str, startup: int, first: float, folder: Path) -> None:
    found = read_json(folder / "study.json")
    found["settings"] |= {"sampler": sampler, "startup_trials": startup}
    write_json(folder / "study.json", found)
    assert searches(read(folder))[0].startup == first


def test_modelling_begins_with_the_first_proposal_that_was_told_of_earlier_trials(folder: Path) -> None:
    """The fourth was told of more than the third: that does not move where the search began."""
    settings = read_json(folder / "study.json")
    settings["settings"] |= {"sampler": "auto", "startup_trials": 0}
    write_json(folder / "study.json", settings)
    for number, priors in ((2, 44), (3, 47)):
        path = folder / "search" / "npo:modality=text" / f"{number:04d}.json"
        write_json(path, {**read_json(path), "priors": priors})
    assert searches(read(folder))[0].startup == 2


def test_an_older_study_says_how_many_trials_were_random(folder: Path) -> None:
    found = read_json(folder / "study.json")
    del found["settings"]["sampler"], found["settings"]["startup_trials"]
    write_json(folder / "study.json", found)
    assert searches(read(folder))[0].startup == math.inf
    found["settings"]["random_trials"] = 4
    write_json(folder / "study.json", found)
    assert searches(read(folder))[0].startup == 4


@pytest.mark.parametrize(("count", "told"), [(24, True), (4, False), (3, False)])
def test_it_has_learned_only_if_the_test_says_so(
    count: int, told: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three trials are drawn before any model: a single nearer one is no proof, and without one there is no test."""
    monkeypatch.setattr(section, "searches", lambda _: [search(FALLING[:count])])
    assert ("learned from its results" in section.well(read(folder))) == told


def test_the_section_shows_what_the_terminal_says(folder: Path) -> None:
    study = read(folder)
    found = list(section.parts(study))
    assert found[:-1] == section.sentences(study)
    assert any("not shown to have learned anything" in str(part) for part in found)
    line = section.health_table(study).raw.iloc[0]
    assert (line["trials"], line["hyperparameters"], line["lost"]) == (6, 1, 0)
    assert (line["nearest_first"], line["nearest_later"]) == (pytest.approx(0.1), pytest.approx(0.25))
