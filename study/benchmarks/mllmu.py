"""MLLMU-Bench (Liu et al. 2024, arXiv 2410.22108): 500 fictitious people and 153 celebrities, from a local copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from study.benchmarks._mllmu_format import read
from study.questions import Benchmark


@dataclass(frozen=True)
class Mllmu:
    """The parquet files of MLLMMU/MLLMU-Bench (Hugging Face hub) in the folder `path`.

    Roles: forget_X is `forget`, the Test_Set rows of the same people `test`, retain_(100-X) `retain` and Retain_Set,
    the real celebrities, `real`; a celebrity whose ID is also a fictitious person's is called `real-ID`.
    Classification is zero-shot and its options are scored by likelihood, not listed in the prompt.
    Three extensions of the layout are read: rows of ft_Data without image are text lessons; a folder `Strangers`
    with the column `image` holds pictures of people who are nowhere else in the dataset; and the key `Attribute` in
    lessons (ft_Data's metadata) and in the questions of the task columns says what kind of fact each is about.
    Without that key it is derived from the `biography` in Full_Set where that is safe (see `_mllmu_biography`). Some
    remain unlabelled, so forgetting single attributes takes labels by hand for the rest: `narrowed` says how many.
    """

    path: Path

    def __call__(self, folder: Path) -> Benchmark:
        """The dataset, validated; nothing is kept in `folder`. Raises `ValueError` naming what is wrong and where."""
        return read(self.path, "mllmu")
