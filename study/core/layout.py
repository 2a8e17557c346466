"""The layout of a study on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class StudyFolder:
    """The paths of a study's files. Only paths relative to `root` are ever stored, so the folder can be moved."""

    root: Path

    @property
    def settings(self) -> Path:
        """The resolved settings, versions and fingerprints."""
        return self.root / "study.json"

    @property
    def winners(self) -> Path:
        """The winning trials, by method and ratio."""
        return self.root / "winners.json"

    @property
    def data(self) -> Path:
        """Generated benchmarks and base models."""
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
        """A trial's rows: `select` (validation half), `report` (test half), `blind` (grey pictures) or `released`
        (official protocol)."""
        return self.trial(key) / "rows" / f"{name}.parquet"

    def attack(self, key: str, attack: str) -> Path:
        """The rows of one attack on a trial; its `.json` beside it."""
        return self.trial(key) / "attacks" / f"{attack}.parquet"

    def metric_check(self, key: str, state: str) -> Path:
        """The rows of a model of the meta-evaluation in a state: `plain`, `quantized` or `relearned`; its `.json`
        beside it."""
        return self.trial(key) / "metric_check" / f"{state}.parquet"

    def sequence(self, key: str, requests: int) -> Path:
        """The rows of sequential unlearning with a trial's method in so many requests; its `.json` beside it."""
        return self.trial(key) / "sequence" / f"{requests}.parquet"

    def proposal(self, method: str, number: int) -> Path:
        """A proposal of the search for a method, by its number."""
        return self.root / "search" / method / f"{number:04d}.json"

    def attack_proposal(self, key: str, attack: str, number: int) -> Path:
        """A proposal of the attack search against a trial, by its number."""
        return self.root / "attack_search" / key / attack / f"{number:04d}.json"

    def cache(self, key: str) -> Path:
        """Derived values that are rebuilt when missing."""
        return self.root / "cache" / key
