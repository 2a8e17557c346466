"""Simulated people, seeds and answers, judged by the project's own functions: do intervals cover, do verdicts err?

`python -m tests.metrics.simulation 200` prints two tables. The first is the share of 200 simulated studies whose 95 %
interval holds the truth, for scores of choices, overlaps like ROUGE and probabilities; for means, gains above control
and normalised recoveries. The second is of studies of six methods and three attacks: how many say of any method that
something came back though nothing did, how many of the lines they then call equivalent to retraining, and how many of
the lines in which everything came back they find. Log odds of a right answer are a level + the person + the seed +
both + the question, all normal.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from study.metrics import intervals
from study.metrics.intervals import Block, Estimate, Values, estimate, pooled
from study.metrics.verdicts import Evidence, Verdict, verdicts

KINDS = ("accuracy", "overlap", "probability")
PEOPLE = (6, 9, 25, 75)
NOISES = (0.0, 0.5, 1.0)
"""Spread of seeds as a part of that of people."""
STATISTICS = ("mean", "gain above control", "normalised recovery")
SEEDS, QUESTIONS = 3, 4
OF_PEOPLE, OF_BOTH, OF_QUESTIONS = 0.8, 0.4, 0.6  # spread in log odds; the default study's people spread about so
BEFORE, AFTER, CONTROL_AFTER, VANILLA = -1.4, -0.2, -1.0, 3.0  # levels: accuracies near 0.2, 0.45, 0.3 and 0.95
ALL_BACK = 3.5  # about 0.95
METHODS, ATTACKS = 6, 3  # of a study that is judged
MANY = 400_000  # draws for the truth: its error is far below the widths


class Cell(NamedTuple):
    """One kind of study that is simulated."""

    kind: str
    noise: float
    people: int


class World:
    """Draws studies of one kind, and knows the truth about them."""

    def __init__(self, cell: Cell, seed: int) -> None:
        self.cell, self.draw = cell, np.random.default_rng(seed)

    def truth(self, level: float) -> float:
        """The expected score at a level, over people, seeds and questions."""
        spread = math.hypot(OF_PEOPLE, OF_PEOPLE * self.cell.noise, OF_BOTH, OF_QUESTIONS)
        right = float(expit(level + np.random.default_rng(1).normal(0, spread, MANY)).mean())
        return right + (1 - right) * 0.6 if self.cell.kind == "overlap" else right  # 0.6: the mean of the beta below

    def people(self) -> Values:
        """How well each person is known, whatever the model."""
        return self.draw.normal(0, OF_PEOPLE, (self.cell.people, 1, 1))

    def scores(self, level: float, people: Values, seeds: int = SEEDS) -> Values:
        """Scores of shape (people, seeds), the mean over questions."""
        n, normal = self.cell.people, self.draw.normal
        odds = level + people + normal(0, OF_PEOPLE * self.cell.noise, (1, seeds, 1))
        odds = odds + normal(0, OF_BOTH, (n, seeds, 1)) + normal(0, OF_QUESTIONS, (n, seeds, QUESTIONS))
        chance = expit(odds)
        if self.cell.kind == "probability":
            return np.asarray(chance.mean(axis=2))
        right: NDArray[np.bool_] = self.draw.random(chance.shape) < chance
        part = self.draw.beta(6, 4, chance.shape) if self.cell.kind == "overlap" else 0.0
        return np.asarray(np.where(right, 1.0, part).mean(axis=2))

    def attacked(self, after: float, people: Values) -> Values:
        """Scores before and after an attack, of shape (people, seeds, 2)."""
        return np.stack([self.scores(BEFORE, people), self.scores(after, people)], axis=2)


def gain(values: Sequence[Values]) -> float:
    """The gain of the first block above that of the second."""
    own, control = ((block[..., 1] - block[..., 0]).mean() for block in values)
    return float(own - control)


def recovery(values: Sequence[Values]) -> float:
    """What came back of what was forgotten; the second block is vanilla's."""
    before, after, vanilla = values[0][..., 0].mean(), values[0][..., 1].mean(), values[1].mean()
    return float((after - before) / (vanilla - before))


def one(world: World) -> Iterator[Estimate]:
    """The estimates of one simulated study, in the order of `STATISTICS`."""
    yield intervals.mean(world.scores(CONTROL_AFTER, world.people()))
    people = world.people()
    own = Block(world.attacked(AFTER, people), ("people", "seed", ""))
    control = Block(world.attacked(CONTROL_AFTER, people), ("people", "reference", ""))
    yield estimate(gain, [own, control], ["people"], ["seed", "reference"])
    vanilla = Block(world.scores(VANILLA, people, seeds=1), ("people", ""))
    yield estimate(recovery, [own, vanilla], ["people"], ["seed"])


def coverage(cell: Cell, studies: int, seed: int = 0) -> list[float]:
    """The share of simulated studies whose interval holds the truth, for each of `STATISTICS`."""
    world = World(cell, seed)
    before, after, control, vanilla = map(world.truth, (BEFORE, AFTER, CONTROL_AFTER, VANILLA))
    truths = (control, after - control, (after - before) / (vanilla - before))
    hits = np.zeros(len(STATISTICS))
    for _ in range(studies):
        hits += [low <= truth <= high for (_, low, high), truth in zip(_intervals(world), truths, strict=True)]
    return [float(share) for share in hits / studies]


def _intervals(world: World) -> Iterator[intervals.Interval]:
    return (found.interval() for found in one(world))


def judged(cell: Cell, after: float, seed: int, *, methods: int = METHODS, attacks: int = ATTACKS) -> list[Verdict]:
    """The verdicts on one simulated study, in which attacks take every method to `after`."""
    world = World(cell, seed)
    people, found = world.people(), []
    for _ in range(attacks):
        control = world.attacked(CONTROL_AFTER, people)
        found += [_evidence(world.attacked(after, people), control, f"seed of {method}") for method in range(methods)]
    estimates = pooled([line.above_control for line in found])
    return verdicts([replace(line, above_control=one) for line, one in zip(found, estimates, strict=True)])


def _evidence(own: Values, control: Values, seed: str) -> Evidence:
    blocks = [Block(own, ("people", seed, "")), Block(control, ("people", "reference", ""))]
    above = estimate(gain, blocks, ["people"], [seed, "reference"])
    before, end = float(own[..., 0].mean()), float(own[..., 1].mean())
    return Evidence(above, end - before, end, float(control[..., 1].mean()), forgotten=0.6)


def main(studies: int, show: Callable[[str], object] = print) -> None:
    """Print both tables."""
    show(f"{'scores':<12} {'seed noise':>10} {'people':>6}  " + "  ".join(STATISTICS))
    for cell in map(Cell._make, product(KINDS, NOISES, PEOPLE)):
        shares = zip(coverage(cell, studies), STATISTICS, strict=True)
        show(
            f"{cell.kind:<12} {cell.noise:>10g} {cell.people:>6}  " + "  ".join(f"{x:>{len(n)}.3f}" for x, n in shares)
        )
    show(f"{'scores':<12} {'seed noise':>10} {'people':>6}  a false 'came back'  equivalent  all back and found")
    for cell in map(Cell._make, product(("accuracy", "probability"), NOISES, (6, 9, 12, 25, 50))):
        few = range(max(1, studies // 5))
        none = [judged(cell, CONTROL_AFTER, seed) for seed in few]
        back = [verdict for seed in few for verdict in judged(cell, ALL_BACK, seed)]
        alarm = np.mean(["came back" in study for study in none])
        equal = np.mean([verdict == "equivalent to retraining" for study in none for verdict in study])
        found = np.mean([verdict == "came back" for verdict in back])
        show(f"{cell.kind:<12} {cell.noise:>10g} {cell.people:>6}  {alarm:>19.3f}  {equal:>10.3f}  {found:>18.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
