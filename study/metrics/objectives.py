"""The objectives of a study: rows of scored questions in, two numbers and their directions out.

Pure and said once: the search ranks trials with these functions and the analysis reports them. The forget gap is a
distance between distributions over people (`study.metrics.forget_gap`); utility uses the normalised probability of the
right option of classification questions, which is smoother than accuracy. A study may add a third objective,
`study.metrics.recovery.objective`: what an attack brings back.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from study.core.hashing import Keyed
from study.core.terms import Goal, Group
from study.metrics.forget_gap import forget_gap
from study.metrics.formulas import harmonic
from study.metrics.scored import Choice, Rows, scored

K = TypeVar("K", bound=Keyed)

SPARED: tuple[Group, ...] = (("spared", "image_text"), ("spared", "text"))

DIRECTIONS = {"forget_gap": "minimize", "utility": "maximize"}
ROBUST_DIRECTIONS = {**DIRECTIONS, "recovery": "minimize"}
"""Those of a study that attacks every trial."""

BROKEN = 0.5
"""Below this fraction of vanilla's retain accuracy, or this utility, a model has collapsed rather than unlearned: half
of what had to be kept is gone."""


def as_collapsed(values: Mapping[str, float], *, robust: bool) -> dict[str, float]:
    """The objectives of a trial that collapsed at a rung, where nobody attacks it: all counts as recovered then."""
    return {**values, **({"recovery": 1.0} if robust else {})}


def forget_groups(goal: Goal, there: Collection[Group] = ()) -> tuple[Group, ...]:
    """The (role, modality) groups that must go: with picture under `visual`, with and without it under `full`.

    `there` are the groups that have rows; text is left out where a narrowed request has none (see `_wordless`).
    """
    image: tuple[Group, ...] = (("forget", "image_text"), ("test", "image_text"))
    text: tuple[Group, ...] = (("forget", "text"), ("test", "text"))
    return image if goal == "visual" else image + tuple(group for group in text if not _wordless(group, there))


def keep_groups(goal: Goal, there: Collection[Group] = ()) -> tuple[Group, ...]:
    """The groups whose knowledge must stay; under `visual` these include what text tells of the forget people.

    `there` are the groups that have rows: those of what is spared of the forget people are kept where they are.
    """
    kept: tuple[Group, ...] = (("retain", "image_text"), ("retain", "text"), ("real", "image_text"), ("real", "text"))
    text: Group = ("forget", "text")
    spared = tuple(group for group in SPARED if group in there)
    return (*kept, *(() if goal == "full" or _wordless(text, there) else (text,)), *spared)


def gap_to(references: Sequence[Rows], rows: Rows, goal: Goal) -> float:
    """The forget gap of one model's rows to those of the references of its ratio, in [0, 1], lower is better.

    Raises `ValueError` that names what has no rows.
    """
    return forget_gap(rows, references, forget_groups(goal, _groups(rows) | _groups(references[0])))


def mean_gap(rows: Rows, references: Sequence[Rows], goal: Goal) -> float:
    """The mean over groups of |mean p - mean p of the references|, of choices, in [0, 1]; lower is better.

    What studies were searched by before the forget gap: a mean over people that a mixture of known and crushed people
    can match, shown beside it. Raises `ValueError` that names the group without rows.
    """
    gaps = [
        abs(
            _probability(_choices(rows, group), group, "the trial")
            - _probability([one for its in references for one in _choices(its, group)], group, "the reference")
        )
        for group in forget_groups(goal, _groups(rows).union(*map(_groups, references)))
    ]
    return math.fsum(gaps) / len(gaps)


def utility(rows: Rows, vanilla_rows: Rows, goal: Goal) -> float:
    """Utility in [0, 1], higher is better: harmonic mean over groups of min(1, mean p / mean p of vanilla).

    Vanilla counts on the questions that the trial was asked, which may be some of its own.
    0 if one group is lost completely. Raises `ValueError` that names the group without rows of the trial or vanilla.
    """
    there = _groups(rows) | _groups(vanilla_rows)
    kept = [_kept(rows, vanilla_rows, group) for group in keep_groups(goal, there)]
    return min(1.0, harmonic(kept))


def objectives(rows: Rows, vanilla_rows: Rows, references: Sequence[Rows], goal: Goal) -> dict[str, float]:
    """Both objectives of one trial, by the names of `DIRECTIONS`. Never NaN: `ValueError` says what is missing."""
    rows, vanilla_rows, references = scored(rows), scored(vanilla_rows), [scored(one) for one in references]
    return {"forget_gap": gap_to(references, rows, goal), "utility": utility(rows, vanilla_rows, goal)}


def costs(values: Mapping[str, float]) -> tuple[float, ...]:
    """The objectives of a trial that are there as costs in [0, 1]: forget gap, 1 - utility and, if any, recovery."""
    third = (values["recovery"],) if "recovery" in values else ()
    return (values["forget_gap"], 1.0 - values["utility"], *third)


def distance_to_ideal(forget_gap: float, utility: float, recovery: float = 0.0) -> float:
    """sqrt(forget_gap^2 + (1 - utility)^2 + recovery^2), in [0, sqrt 3].

    0 forgets like the references, keeps like vanilla and, where that is an objective, gives nothing back.
    """
    return math.hypot(forget_gap, 1.0 - utility, recovery)


def nearest_first(distances: Mapping[K, float]) -> list[K]:
    """Trials by their distance to the ideal point, the winner first; ties go to the smallest key."""
    return sorted(distances, key=lambda trial: (distances[trial], trial.key))


def dominates(points: ArrayLike) -> NDArray[np.bool_]:
    """Which of the points (n, k) each one dominates (row over column), all costs minimized; NaN none and is by none."""
    found = np.asarray(points, dtype=float)
    no_worse, better = np.ones((len(found), len(found)), dtype=bool), np.zeros((len(found), len(found)), dtype=bool)
    for cost in found.T:
        no_worse &= cost[:, None] <= cost[None, :]
        better |= cost[:, None] < cost[None, :]
    return no_worse & better


def front_mask(costs: ArrayLike) -> NDArray[np.bool_]:
    """Which of the points (n, k) no other dominates, all costs minimized; equal points stay together, NaN never is."""
    points = np.asarray(costs, dtype=float)
    if points.size == 0:
        return np.zeros(len(points), dtype=bool)
    return np.asarray(~dominates(points).any(axis=0) & ~np.isnan(points).any(axis=1), dtype=bool)


def front(trials: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The keys of the trials on the Pareto front over all their objectives."""
    points = [costs(values) for values in trials.values()]
    return [key for key, on_front in zip(trials, front_mask(points), strict=True) if on_front]


def _wordless(group: Group, there: Collection[Group]) -> bool:
    """Whether a text group cannot have questions: what is to be forgotten cannot be asked in text, like a name.

    Then all text questions about the forget people are spared. Without spared rows a missing group is an error.
    """
    return group not in there and ("spared", "text") in there


def _groups(rows: Rows) -> set[Group]:
    return set(scored(rows).choices)


def _kept(rows: Rows, vanilla_rows: Rows, group: Group) -> float:
    asked = scored(rows).questions
    before = _probability([choice for choice in _choices(vanilla_rows, group) if choice[0] in asked], group, "vanilla")
    if before == 0.0:
        raise ValueError(f"vanilla gives {' '.join(group)} classification probability 0: nothing there can be kept")
    return min(1.0, _probability(_choices(rows, group), group, "the trial") / before)


def _choices(rows: Rows, group: Group) -> Sequence[Choice]:
    return scored(rows).choices.get(group, [])


def _probability(choices: Sequence[Choice], group: Group, whose: str) -> float:
    """The mean probability of the right option."""
    if not choices:
        raise ValueError(f"{whose} has no {' '.join(group)} classification rows: score these questions")
    # An exact sum does not depend on the order of the rows, so equal rows give equal objectives on every machine.
    mean = math.fsum(probability for _, probability in choices) / len(choices)
    if math.isnan(mean):
        raise ValueError(f"{whose} has {' '.join(group)} classification rows without probability: score them again")
    return mean
