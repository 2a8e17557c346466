"""Verdicts: planted lines whose right verdict is known, and error rates in simulated studies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from study.metrics.intervals import Block, Component, Estimate, Values, estimate, pooled
from study.metrics.verdicts import Evidence, Needed, Verdict, holm, needed, tellable, verdicts
from tests.metrics.simulation import ALL_BACK, CONTROL_AFTER, Cell, judged


def spread(people: float, seeds: float) -> tuple[Component, ...]:
    """What 12 people and 3 seeds add, given the standard errors."""
    return Component("people", people**2, 12, 11), Component("seed", seeds**2, 3, 2)


SURE, VAGUE, LOOSE = spread(0.02, 0.01), spread(0.15, 0.05), spread(0.06, 0.012)


def line(above: float, components: tuple[Component, ...] = SURE, **about: float | bool) -> Evidence:
    """A line of a method that had forgotten."""
    found = Evidence(
        Estimate(above, components[:1], components[1:]), gain=above, after=0.2 + above, control_after=0.2, forgotten=0.6
    )
    return replace(found, **about)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        (line(0.5), "came back"),
        (line(0.0), "equivalent to retraining"),
        (line(-0.3), "no more than retraining"),
        (line(0.0, VAGUE), "cannot tell"),
        (line(0.05, spread(0.04, 0.01)), "cannot tell"),
        (line(0.5, gain=-0.1), "only the control fell"),
        (line(0.5, after=0.19), "rebound from overshoot"),
        (line(0.0, forgotten=0.05), "not unlearned"),
        (line(0.0, collapsed=True), "collapsed"),
        (line(0.0, ruined=True), "collapsed under attack"),
        (line(0.5, ruined=True), "came back"),  # 0.19 to 0.97 on a model that keeps little else
        (line(0.5, collapsed=True), "came back"),
        (line(0.5, after=0.19, collapsed=True), "collapsed"),  # but for that, nothing is said of a ruin
        (line(0.5, gain=-0.1, ruined=True), "collapsed under attack"),
        (line(0.5, ()), "too few people"),
        (line(math.nan, ()), "no control"),
        (line(0.5, given=True), "given to the attacker"),
    ],
)
def test_each_verdict(evidence: Evidence, verdict: Verdict) -> None:
    assert verdicts([evidence]) == [verdict]


def test_a_line_that_nobody_judged_costs_the_others_nothing() -> None:
    close = line(0.078, spread(0.035, 0.001))  # p about .02: of itself it came back, one of many it did not
    assert verdicts([close]) == ["came back"]
    assert verdicts([close, *[line(0.5, given=True)] * 9]) == ["came back", *["given to the attacker"] * 9]
    assert verdicts([close, *[line(0.0)] * 9])[0] != "came back"


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


def test_needed_is_enough_and_not_much_more() -> None:
    more = needed(Estimate(0.0, LOOSE[:1], LOOSE[1:]))
    assert more is not None
    people, seeds = more
    draw = np.random.default_rng(0)
    of_people, of_seeds = (math.sqrt(part.variance * part.units) for part in LOOSE)

    def power(people: int, seeds: int) -> float:
        told = 0
        for _ in range(100):
            scores = draw.normal(0, of_people, (people, 1)) + draw.normal(0, of_seeds, (1, seeds))
            seen = estimate(lambda v: float(v[0].mean()), [Block(scores, ("people", "seed"))], ["people"], ["seed"])
            told += verdicts([Evidence(seen, 0.1, 0.3, 0.2, 0.6)]) == ["equivalent to retraining"]
        return told / 100

    assert power(people, seeds) > 0.7
    assert power(people // 3, seeds) < 0.5


def test_no_study_is_large_enough_for_some_noise() -> None:
    noisy = spread(0.01, 3.0)
    assert needed(Estimate(0.0, noisy[:1], noisy[1:])) is None
    assert needed(Estimate(0.0)) is None
    assert needed(Estimate(0.0, SURE[:1], SURE[1:])) == Needed(12, 3)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_study_in_which_nothing_came_back_says_so(noise: float) -> None:
    """Six methods, three attacks: at most 5 % of the studies call any line *came back* (and of 80 simulated, 8)."""
    wrong = sum("came back" in judged(Cell("accuracy", noise, 12), CONTROL_AFTER, seed) for seed in range(80))
    assert wrong <= 8  # 5 % of 80 are 4; more than 8 have a probability below 0.03


def test_what_came_back_is_found() -> None:
    """Accuracy from 0.2 to 0.95 where the control comes to 0.3: without noise of seeds most lines find it."""
    found = [verdict for seed in range(10) for verdict in judged(Cell("accuracy", 0.0, 12), ALL_BACK, seed)]
    assert np.mean([verdict == "came back" for verdict in found]) > 0.8


def worst_of_many(draw: np.random.Generator, back: float = 0.0, methods: int = 6, attacks: int = 14) -> list[Evidence]:
    """The worst attack on each of some methods, of which the first brought `back` so much: chosen on one half, told on
    the other.

    What people and seeds do by chance under an attack is the same in both halves; only the questions are others. More
    than half of the attacks do not train and move little.
    """
    moves = np.where(np.arange(attacks) < 6, 1.0, 0.35)[:, None, None]

    def noise(spread: float, people: int = 1, seeds: int = 1) -> Values:
        return np.asarray(moves * draw.normal(0, spread, (attacks, people, seeds)))

    def model(spread_of_people: float) -> tuple[Values, Values]:
        same = noise(spread_of_people, 12) + noise(0.05, 1, 3) + noise(0.1, 12, 3)
        return same + noise(0.15, 12, 3), same + noise(0.15, 12, 3)

    control, found = model(0.0), []
    for method in range(methods):
        own = model(0.25)
        for half in own:
            half[0] += back
        worst = int(np.argmax((own[0] - control[0]).mean((1, 2))))
        blocks = [Block(own[1][worst], ("people", f"seed of {method}")), Block(control[1][worst], ("people", "seed"))]
        above = estimate(lambda v: float(v[0].mean() - v[1].mean()), blocks, ["people"], [f"seed of {method}", "seed"])
        found.append(Evidence(above, above.value, 0.3 + above.value, 0.3, forgotten=0.6, tried=attacks))
    return [replace(one, above_control=shared) for one, shared in
            zip(found, pooled([one.above_control for one in found]), strict=True)]  # fmt: skip


def test_the_worst_of_many_attacks_is_no_surprise() -> None:
    """At most one study in twenty says of its worst attacks that something came back; without the count of attacks
    more than one in ten would."""
    draw = np.random.default_rng(0)
    studies = [worst_of_many(draw) for _ in range(60)]
    told = [verdicts(lines) for lines in studies]
    hasty = [verdicts([replace(line, tried=1) for line in lines]) for lines in studies]
    assert np.mean(["came back" in study for study in told]) <= 0.05
    assert np.mean(["came back" in study for study in hasty]) > 0.1
    assert verdicts([line(0.5, tried=20)]) == ["came back"]


@pytest.mark.parametrize(("back", "least", "most"), [(0.3, 0.05, 0.5), (0.5, 0.8, 1.0)])
def test_what_the_worst_of_many_attacks_can_tell(back: float, least: float, most: float) -> None:
    """A study of twelve people finds what is large."""
    draw = np.random.default_rng(1)
    found = [verdict == "came back" for _ in range(30) for verdict in verdicts(worst_of_many(draw, back))]
    assert least <= np.mean(found) <= most


def test_a_plan_promises_what_the_worst_of_many_attacks_can_tell() -> None:
    """Between .3, which the simulated study of twelve people seldom tells, and .5, which it mostly does."""
    assert 0.3 < tellable(12, 3, 3, winners=6, attacks=14) < 0.5
    assert tellable(12, 3, 3) < tellable(12, 3, 3, attacks=14) < tellable(12, 3, 3, attacks=14 * 6)
    assert np.isnan(tellable(5, 3, 3))
