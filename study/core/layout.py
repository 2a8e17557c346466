"""Where everything of a study lies on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class StudyFolder:
    """Where everything of a study lies. Only paths relative to `root` are ever stored, so it can be moved."""

    root: Path

    @property
    def settings(self) -> Path:
        """The resolved settings, versions and fingerprints."""
        return self.root / "study.json"

    @property
    def winners(self) -> Path:
        """Which trials won, by method and ratio."""
        return self.root / "winners.json"

    @property
    def data(self) -> Path:
        """Where benchmarks and base models that are made, not downloaded, are kept."""
        return self.root / "data"

    @property
    def report(self) -> Path:
        """Tables, figures and the report."""
        return self.root / "report"

    def learned(self, key: str) -> Path:
        """A learned model: a Hugging Face folder `model/`, `learned.json`, its training curve."""
        return self.root / "learned" / key

    def trial(self, key: str) -> Path:
        """A trial: `trial.json`, weights, rows, attacks."""
        return self.root / "trials" / key

    def record(self, key: str) -> Path:
        """A trial's `trial.json`: written last, so a trial that has one is finished."""
        return self.trial(key) / "trial.json"

    def rows(self, key: str, name: str) -> Path:
        """A trial's rows: `select`, `report`, `blind` or, by the benchmark authors' own protocol, `released`."""
        return self.trial(key) / "rows" / f"{name}.parquet"

    def attack(self, key: str, attack: str) -> Path:
        """The rows of one attack on a trial; its `.json` beside it."""
        return self.trial(key) / "attacks" / f"{attack}.parquet"

    def metric_check(self, key: str, state: str) -> Path:
        """The rows of a model of the pool that metrics are checked on: `plain`, `quantized` or `relearned`; its
        `.json` beside it."""
        return self.trial(key) / "metric_check" / f"{state}.parquet"

    def sequence(self, key: str, requests: int) -> Path:
        """The rows of a trial's method applied to several requests in turn; its `.json` beside it."""
        return self.trial(key) / "sequence" / f"{requests}.parquet"

    def proposal(self, method: str, number: int) -> Path:
        """What the search proposed for a method, in order."""
        return self.root / "search" / method / f"{number:04d}.json"

    def attack_proposal(self, key: str, attack: str, number: int) -> Path:
        """What the attacker's search proposed against a trial, in order."""
        return self.root / "attack_search" / key / attack / f"{number:04d}.json"

    def cache(self, key: str) -> Path:
        """Derived values that are rebuilt when missing."""
        return self.root / "cache" / key
