"""What every job of a study needs to find."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from study.contracts import Request, Source
from study.core.hashing import content_key
from study.core.layout import StudyFolder
from study.core.records import read_known
from study.data.benchmark import Benchmark
from study.data.halves import prepared
from study.engine.microbatches import MicroBatching
from study.experiment.checkpoints import cached, load_learned
from study.experiment.trial_spec import Trial
from study.model.loading import Loading, load
from study.model.memory_estimate import describe


@dataclass(frozen=True)
class StudyContext:
    """What every job of a study needs to find: the study's folder, its benchmark and its base model."""

    root: Path
    source: Source
    base: Path
    device: str = "cpu"
    attributes: tuple[str, ...] = ()
    """What of the forget people is to be forgotten; empty for everything."""
    loading: Loading = Loading()
    """How the base model is loaded, and what is learned from it."""
    only_known: bool = False
    """Whether only what vanilla knows is asked of what must go."""
    scored_error: float = 0.0
    """As `study.experiment.scored_sample` takes it."""

    @property
    def folder(self) -> StudyFolder:
        """Where the study lies."""
        return StudyFolder(self.root)

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark, read once per process."""
        if self.only_known:
            return _known_benchmark(self.source, self.folder, self.attributes)
        return _benchmark(self.source, self.folder.data, self.attributes)

    def needed(self) -> str:
        """What its model takes of memory, in words."""
        return describe(self.base, self.loading)

    def request(self, trial: Trial, reference: str, chunks: MicroBatching | None = None) -> Request:
        """The forget request of a trial. `reference` is the key of the learned reference model.

        The models that it loads cut their forwards into `chunks`.
        """
        finely = chunks or MicroBatching()
        return Request(
            split=self.benchmark.split(trial.ratio),
            goal=trial.goal,
            strangers=self.benchmark.strangers,
            seed=trial.seed,
            cache=self.folder.cache(content_key((trial.start, trial.goal, trial.ratio))),
            base=lambda: replace(load(self.base, loading=self.loading.as_taught), chunks=finely),
            reference=lambda: replace(load_learned(self.root, reference, self.device), chunks=finely),
            start=lambda: cached(self.root, trial.start.key, self.device).weights,
            adapter=trial.method.trains_adapters,
        )


@functools.lru_cache(maxsize=1)
def _benchmark(source: Source, folder: Path, attributes: tuple[str, ...]) -> Benchmark:
    return prepared(source(folder), attributes)


@functools.lru_cache(maxsize=1)  # what counts is settled before the first trial
def _known_benchmark(source: Source, folder: StudyFolder, attributes: tuple[str, ...]) -> Benchmark:
    whole, known = _benchmark(source, folder.data, attributes), read_known(folder)
    return replace(whole, splits={r: s.without(known[r].dropped) for r, s in whole.splits.items() if r in known})
