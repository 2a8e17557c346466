"""What came back, against sums by hand; only what was held out counts, at the step where the attacker stops."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from study.core.rows import ROW_COLUMNS
from study.core.terms import HALVES
from study.metrics.intervals import Block, Component, Estimate, Values, estimate
from study.metrics.recovery import (
    above_control,
    first_reached,
    gains,
    gains_above,
    kept,
    objective,
    stop,
    stopping_step,
)


def rows(*lines: tuple[str, str, str, int, float, float]) -> pd.DataFrame:
    """Rows of (role, half, held out, step, probability, score)."""
    names = ("role", "half", "held_out", "step", "probability", "score")
    frame = pd.DataFrame([dict(zip(names, line, strict=True)) for line in lines])
    return frame.reindex(columns=list(ROW_COLUMNS))


MINE = rows(
    ("forget", "select", "person", 0, 0.2, 0), ("forget", "select", "fact", 0, 0.4, 0),
    ("forget", "select", "", 0, 0.0, 0), ("forget", "report", "fact", 0, 1.0, 0),
    ("forget", "select", "person", 5, 0.9, 1), ("forget", "select", "fact", 5, 0.7, 1),
    ("forget", "select", "", 5, 1.0, 1), ("forget", "report", "fact", 5, 0.5, 0),
    ("forget", "select", "person", 2, 0.0, 0),
    ("retain", "select", "person", 0, 0.9, 1), ("retain", "select", "person", 0, 0.9, 1),
    ("retain", "select", "person", 5, 0.9, 1), ("retain", "select", "person", 5, 0.1, 0),
    ("real", "select", "person", 5, 0.1, 0),
)  # fmt: skip
CONTROL = rows(("forget", "select", "fact", 0, 0.1, 0), ("forget", "select", "fact", 5, 0.3, 0))


def course(select: Mapping[int, float], report: Mapping[int, float], left: float = 1.0) -> pd.DataFrame:
    """An attack on one person, by the probability at each step of each half; `left` of the retain accuracy stays."""
    both = dict(zip(HALVES, (select, report), strict=True))
    return rows(
        *(("forget", half, "person", step, p, 0) for half, levels in both.items() for step, p in levels.items()),
        *(("retain", half, "person", step, 0, left if step else 1) for half, ps in both.items() for step in ps),
    )


def test_recovery_is_the_gain_above_that_of_the_control() -> None:
    """(.9 + .7) / 2 - (.2 + .4) / 2 = .5 of the model less .3 - .1 of the control."""
    assert above_control([MINE], [CONTROL], "select") == pytest.approx(0.5 - 0.2)
    assert above_control([MINE], [MINE], "select") == 0.0
    there = MINE[MINE["step"] != 2]
    assert above_control([there], [there.assign(probability=0.5)], "report") == pytest.approx(-0.5)


def test_what_is_kept_is_a_part_of_what_there_was() -> None:
    assert kept(MINE, "select")[5] == 0.5
    assert kept(MINE.assign(score=0.0), "select")[5] == 0.0
    assert math.isnan(kept(MINE, "report")[5])


def test_an_attacker_who_has_everything_is_refused() -> None:
    given = MINE.assign(held_out="")
    with pytest.raises(ValueError, match="given every fact about all people"):
        above_control([given], [CONTROL], "select")


def test_only_steps_that_both_were_taken_to_count() -> None:
    """A control that broke after step 5 was attacked for five steps: so long is what it is compared with."""
    levels = {step: 0.1 + 0.02 * step for step in (0, 5, 40)}
    whole = course(levels, levels)
    short = whole[whole["step"] <= 5]
    flat = course(dict.fromkeys(levels, 0.1), dict.fromkeys(levels, 0.1))
    assert stop([whole], [flat]) == 40
    assert above_control([whole], [flat], "report") == pytest.approx(0.8)
    for pair in (([short], [flat]), ([whole], [flat[flat["step"] <= 5]])):
        assert stop(*pair) == 5
        assert above_control(*pair, "report") == pytest.approx(0.1)
    assert above_control([whole, short], [flat], "report") == pytest.approx(0.1)
    assert above_control([whole, short[short["step"] == 0]], [flat], "report") == pytest.approx(0.8)
    assert stop([short[short["step"] == 0]], [flat]) is None
    assert math.isnan(above_control([short[short["step"] == 0]], [flat], "report"))


def test_the_attacker_stops_at_the_peak_of_the_validation_half() -> None:
    """By hand: .5 - .1 at step 5 there, so that the other half counts at step 5, although it peaks at step 10."""
    mine = course({0: 0.1, 5: 0.6, 10: 0.3, 20: 0.6}, {0: 0.2, 5: 0.5, 10: 0.9, 20: 0.9})
    control = course({0: 0.1, 5: 0.2, 10: 0.2, 20: 0.6}, {0: 0.1, 5: 0.3, 10: 0.1, 20: 0.1})
    assert stop([mine], [control]) == 5
    assert above_control([mine], [control], "select") == pytest.approx(0.4)
    assert above_control([mine], [control], "report") == pytest.approx(0.3 - 0.2)


def test_one_step_for_all_seeds() -> None:
    """Alone the seeds would stop at 5 and at 10; together .5 + .1 at step 5 is more than .1 + .4 at step 10."""
    flat = course({0: 0.0, 5: 0.0, 10: 0.0}, {0: 0.0, 5: 0.0, 10: 0.0})
    one = course({0: 0.0, 5: 0.5, 10: 0.1}, {0: 0.0, 5: 0.2, 10: 0.8})
    two = course({0: 0.0, 5: 0.1, 10: 0.4}, {0: 0.0, 5: 0.4, 10: 0.8})
    assert [stop([one], [flat]), stop([two], [flat]), stop([one, two], [flat, flat])] == [5, 10, 5]
    assert above_control([one, two], [flat, flat], "report") == pytest.approx(0.3)


def test_of_equal_steps_the_first_and_without_a_validation_half_the_last() -> None:
    mine, flat = (course({0: 0.1, 5: p, 10: p}, {0: 0.1, 5: 0.9, 10: 0.2}) for p in (0.4, 0.1))
    assert stop([mine], [flat]) == 5
    told = [frame[frame["half"] == "report"] for frame in (mine, flat)]
    assert stop(told[:1], told[1:]) == 10
    assert gains(told[0], "select").isna().all()
    assert above_control(told[:1], told[1:], "report") == pytest.approx(0.0)


def test_a_single_step_is_that_step() -> None:
    mine, flat = course({0: 0.5, 1: 0.1}, {0: 0.5, 1: 0.9}), course({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5})
    assert stop([mine], [flat]) == 1
    assert above_control([mine], [flat], "report") == pytest.approx(0.4)


def test_the_objective_is_taken_where_the_attacker_stops() -> None:
    """At step 5 all of the retain accuracy is left, at step 10 nothing, so that the peak decides whether it counts."""
    early, late = ({0: 0.1, 5: a, 10: b} for a, b in ((0.5, 0.2), (0.2, 0.5)))
    flat = course({0: 0.1, 5: 0.1, 10: 0.1}, {0: 0.1, 5: 0.1, 10: 0.1})
    for levels, expected in ((early, 0.4), (late, 1.0)):
        mine = course(levels, levels)
        mine.loc[(mine["role"] == "retain") & (mine["step"] == 10), "score"] = 0.0
        assert objective(mine, flat, "select", utility=1.0, keeps=0.5) == pytest.approx(expected)
    assert math.isnan(objective(flat[flat["step"] == 0], flat, "select", utility=1.0, keeps=0.5))


def test_choosing_the_step_on_the_other_half_flatters_nobody() -> None:
    """Noise alone, eight steps: the best of the test half itself is far above 0, the chosen one is 0 in the mean."""
    draw = np.random.default_rng(0)

    def noise() -> dict[int, float]:
        return {0: 0.5, **{5 * n: 0.5 + 0.1 * draw.normal() for n in range(1, 9)}}

    told, flattered = [], []
    for _ in range(150):
        mine, control = course(noise(), noise()), course(noise(), noise())
        told.append(above_control([mine], [control], "report"))
        flattered.append((gains(mine, "report") - gains(control, "report")).max())
    error = np.std(told) / len(told) ** 0.5  # about .14 / 12
    assert abs(np.mean(told)) < 3 * error < 0.04
    assert np.mean(flattered) > 0.15


def chosen_gain(draw: np.random.Generator, spread_of_people: float, spread_of_seeds: float) -> Estimate:
    """The gain above control at the chosen step, where nothing came back: 12 people, 3 seeds and 3 references.

    The halves ask for other facts, but of the same people and of the same seeds: these wander alike in both.
    """

    def wandering(spread: float, *shape: int) -> Values:
        """Noise of four steps that adds up along the way, of this standard deviation at the end."""
        return np.cumsum(draw.normal(0, spread / 2, (4, *shape)), axis=0)

    people = wandering(spread_of_people, 12, 1)
    seeds = [wandering(spread_of_seeds, 1, 3) + wandering(0.1, 12, 3) for _ in range(2)]
    half = [(people + seeds[0] + wandering(0.15, 12, 3), seeds[1] + wandering(0.15, 12, 3)) for _ in HALVES]
    steps = [5, 10, 20, 40]
    mine, control = (pd.Series(values.mean(axis=(1, 2)), steps) for values in half[0])
    at = steps.index(stopping_step(gains_above([mine], [control])) or 0)
    blocks = [Block(values[at], ("people", seed)) for values, seed in zip(half[1], ("seed", "reference"), strict=True)]
    return estimate(lambda v: float(v[0].mean() - v[1].mean()), blocks, ["people"], ["seed", "reference"])


@pytest.mark.slow
@pytest.mark.parametrize("spreads", [(0.25, 0.0), (0.25, 0.05), (0.25, 0.1)])
def test_choosing_on_the_same_people_and_seeds_keeps_the_error(spreads: tuple[float, float]) -> None:
    """The choice flatters the attacker there, by up to .05 at spreads as in the default study, but verdicts hold."""
    draw = np.random.default_rng(2)
    found = [chosen_gain(draw, *spreads) for _ in range(400)]
    assert 0.01 < np.mean([one.value for one in found]) < 0.06
    bounds = [one.interval() for one in found]
    assert np.mean([low <= 0.0 <= high for _, low, high in bounds]) > 0.95
    assert np.mean([one.p_above(0.0) < 0.05 for one in found]) < 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5


def known(value: float, spread: float) -> Estimate:
    """An estimate of twelve people with a standard error."""
    return Estimate(value, (Component("people", spread**2, 12, 11),))


def test_the_first_step_at_which_half_is_back_and_its_bounds() -> None:
    """t(11) = 2.20 standard errors: .10 may be 0 from -.22 to .22 above."""
    found = {5: known(-0.3, 0.1), 10: known(-0.1, 0.1), 20: known(0.1, 0.1), 40: known(0.3, 0.1)}
    assert first_reached(found) == (20, 10, 40)
    assert first_reached(dict(reversed(found.items()))) == (20, 10, 40)


def test_what_never_came_back_is_later_than_the_last_step() -> None:
    assert first_reached({5: known(-0.5, 0.1), 10: known(-0.4, 0.1)}) == (math.inf, math.inf, math.inf)
    assert first_reached({5: known(-0.5, 0.1), 10: known(-0.1, 0.1)}) == (math.inf, 10, math.inf)
    value, *ends = first_reached({5: Estimate(-0.5), 10: Estimate(0.1)})
    assert value == 10
    assert all(map(math.isnan, ends))


def test_the_interval_of_a_first_step_covers_it() -> None:
    """A rise that is half-way back from step 20 on, seen with noise: at most one in twenty misses it."""
    draw = np.random.default_rng(1)
    truth, hit = {5: -0.3, 10: -0.1, 20: 0.05, 40: 0.3}, []
    for _ in range(400):
        noise = 0.15 * draw.normal()  # of the people, the same at all steps
        _, low, high = first_reached({step: known(level + noise, 0.15) for step, level in truth.items()})
        hit.append(low <= 20 <= high)
    assert np.mean(hit) > 0.95
