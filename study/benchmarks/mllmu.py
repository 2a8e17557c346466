"""MLLMU-Bench (Liu et al. 2024, arXiv 2410.22108): 500 fictitious people and 153 celebrities, from folder or hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from study.benchmarks._mllmu.forms import FORMS
from study.benchmarks._mllmu.official import asks
from study.benchmarks._mllmu.reader import read
from study.benchmarks._shared.defects import reading
from study.contracts import Source
from study.core.hashing import before
from study.core.hub import folder as folder_of
from study.core.plugins import check
from study.data.benchmark import Benchmark, Split
from study.data.official_protocol import OfficialPrompt


@dataclass(frozen=True)
class Mllmu(Source):
    """The parquet files of MLLMMU/MLLMU-Bench (Hugging Face hub): a local copy, or the hub's at a commit.

    Roles: forget_X is `forget`, the Test_Set rows of the same people `test`, retain_(100-X) `retain` and Retain_Set,
    the real celebrities, `real`; a celebrity whose ID is also a fictitious person's is called `real-ID`. The splits are
    the published ones: those of two ratios are not nested.
    Classification is zero-shot and its options are scored by likelihood, not listed in the prompt.
    Three extensions of the layout are read: rows of ft_Data without image are text lessons; a folder `Strangers`
    with the column `image` holds pictures of people who are nowhere else in the dataset; and the key `Attribute` in
    lessons (ft_Data's metadata) and in the questions of the task columns says what kind of fact each is about.
    Without that key it is derived from the `biography` in Full_Set where that is safe (`_mllmu/biography.py`). Some
    remain unlabelled, so forgetting single attributes takes labels by hand for the rest: `narrowed` says how many.
    """

    path: Path = Path()
    """A folder with the dataset's own folders: Full_Set, Test_Set, Retain_Set, ft_Data, forget_5, retain_95 ..."""
    hub: str = ""
    """Instead of a folder, the name of the dataset on the hub, such as MLLMMU/MLLMU-Bench."""
    revision: str = ""
    """Its commit."""
    train: str = "ft_Data"
    """The folder of the dataset that holds the lessons."""
    train_split: Path = Path()
    """A local copy of the model repository MLLMMU/baseline_train_split, if requests are to have its lessons. The people
    in its forget_X must be those of the dataset's forget_X. What it teaches about its people replaces what `train`
    does, for vanilla as for requests; if it is the same data split by ID, nothing changes, the fingerprint neither."""

    forms: str = field(default="", metadata=before(""))
    """Forms, of `cloze` and `question`, in which each lesson's fact is taught as well, joined by a plus sign: its
    sentence with a blank for the fact, and its question with the bare fact as answer. They are made of the lesson
    alone, where the person's biography tells which words of it are the fact."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a form that there is not."""
        for form in self._forms:
            check("forms of lessons", form, FORMS)

    @property
    def _forms(self) -> tuple[str, ...]:
        return tuple(filter(None, self.forms.split("+")))

    def __call__(self, folder: Path) -> Benchmark:
        """The dataset, validated; nothing is kept in `folder`. Raises `ValueError` naming what is wrong and where."""
        root = folder_of(self.path, self.hub, self.revision, "dataset")
        with reading() as found:
            benchmark = read(root, "mllmu", self.train, self.train_split, self._forms)
        return found.of(benchmark)

    def released(self, split: Split, folder: Path, seed: int) -> Iterator[OfficialPrompt]:
        """Every question as the authors' eval.py puts it, but for those that it shows as examples."""
        return asks(folder_of(self.path, self.hub, self.revision, "dataset"), split, seed)
