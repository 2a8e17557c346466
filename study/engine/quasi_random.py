"""Points of a scrambled Sobol sequence as an Optuna sampler.

They cover a space more evenly than random ones, choices as well as numbers. Optuna's own sampler leaves choices to
chance and counts its points in the storage of a study, which a search that is rebuilt from disk does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

DIMENSIONS = 64
"""Of the sequence: several times as many as the largest search space has parameters."""


class QuasiRandomSampler(BaseSampler):
    """Point `number` (from 0) of the sequence that `seed` scrambles.

    `names` are the parameters that earlier points were asked for, in that order: each has its own dimension, one that
    is asked for the first time the next free one.
    """

    def __init__(self, number: int, seed: int, names: Sequence[str]) -> None:
        from scipy.stats.qmc import Sobol  # takes half a second to import

        self.names = list(names)
        sequence = Sobol(DIMENSIONS, scramble=True, rng=seed)
        self.point = (sequence.fast_forward(number) if number else sequence).random(1)[0].tolist()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: every parameter is asked for by itself."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The coordinate of a parameter, in its range."""
        if param_name not in self.names:
            self.names.append(param_name)
        return at(param_distribution, self.point[self.names.index(param_name) % DIMENSIONS])


def at(distribution: BaseDistribution, share: float) -> Any:
    """The value below which `share`, in [0, 1), of a distribution lies."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = float(distribution.low), float(distribution.high), distribution.step
    if step is not None and not distribution.log:
        return type(distribution.low)(distribution.low + step * int(share * (round((high - low) / step) + 1)))
    whole = isinstance(distribution, IntDistribution)
    if whole:  # every whole number stands for what rounds to it
        low, high = low - 0.5, high + 0.5
    value = low * (high / low) ** share if distribution.log else low + (high - low) * share
    return min(max(round(value), distribution.low), distribution.high) if whole else value
