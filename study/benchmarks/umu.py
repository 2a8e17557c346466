"""UMU-Bench (NeurIPS 2025, Datasets and Benchmarks): 653 people, every fact asked with a picture and without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from study.benchmarks._shared.defects import reading
from study.benchmarks._umu.official import asks
from study.benchmarks._umu.reader import read
from study.contracts import Source
from study.core.hub import folder as folder_of
from study.data.benchmark import Benchmark, Split
from study.data.official_protocol import OfficialPrompt


@dataclass(frozen=True)
class Umu(Source):
    """The parquet files of linbojunzi/UMU-bench (Hugging Face hub; the same as chengyewang/UMU-bench).

    Full_Set is taught: MM_QA with the picture, UM_QA without. Roles: forget_X is `forget`, retain_(100-X) `retain` and
    Real_Person_Set, or real_person, `real`; a real person whose ID is also a fictitious one's is called `real-ID`. The
    two sides of Classify, Cloze and Generation ask for the same fact under the same key, the `fact` of the questions.
    The options of the side with picture are indexed with its own answer; the authors' code indexes them with that of
    the other side. A cloze ends with the words that their code adds.

    There is no test set and one picture of everybody: the questions of the role `test` are those of `forget` behind a
    sentence of ours. Nothing says that the keys of lessons and of questions are about the same, so neither is labelled
    with an attribute and single attributes cannot be forgotten.
    """

    path: Path = Path()
    """The folder that holds Full_Set, forget_5, retain_95 ..."""
    hub: str = ""
    """Instead of a folder, the name of a dataset on the Hugging Face hub, such as linbojunzi/UMU-bench."""
    revision: str = ""
    """Its commit."""

    def __call__(self, folder: Path) -> Benchmark:
        """The dataset, validated; nothing is kept in `folder`. Raises `ValueError` naming what is wrong and where."""
        root = folder_of(self.path, self.hub, self.revision, "dataset")
        with reading() as found:
            benchmark = read(root)
        return found.of(benchmark)

    def released(self, split: Split, folder: Path, seed: int) -> Iterator[OfficialPrompt]:
        """Every question but ours as eval.py of QDRhhhh/UMU-bench asks it. Nothing is drawn: the seed is not used."""
        return asks(split)
