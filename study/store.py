"""What a study keeps on disk: JSON and rows, each file whole or absent, named by the content that made it.

No torch here: the analysis reads a study through this module alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pandas as pd

Json = Any

ROW_COLUMNS = {
    "question": "str",  # unique in its split
    "person": "str",
    "role": "str",  # forget, test, spared (other attributes of the forget people, to be kept), retain, real
    "modality": "str",  # image_text, text
    "task": "str",  # classification, generation, cloze
    "half": "str",  # select, report
    "score": "float64",  # accuracy of a choice or a cloze in {0, 1}; ROUGE-L F1 of a generation in [0, 1]
    "probability": "float64",  # of the right option, normalised over the options; NaN unless classification
    "likelihood": "float64",  # of the right answer, p(answer | question) ^ (1 / its tokens)
    "truth_ratio": "float64",  # mean likelihood of wrong answers / likelihood of the right one in other words
    "exposure": "float64",  # bits: log2 of the number of candidate answers less log2 of the right one's rank
    "member_loss": "float64",  # share of the wrong answers that look less like training data than the right one
    "member_zlib": "float64",
    "member_min_k": "float64",
    "member_min_k_plus_plus": "float64",
    "rouge_1": "float64",  # F1 of a reply with the answer; these six are NaN for choices
    "rouge_2": "float64",
    "rouge_l": "float64",
    "rouge_l_recall": "float64",
    "bleu": "float64",
    "exact_match": "float64",  # share of the keywords that the reply contains; NaN without keywords
    "refused": "bool",  # whether the reply refuses
    "parsed": "bool",  # whether the reply could be read as an answer of the form that was asked for
    "answer": "str",
    "reply": "str",
    "fact": "str",  # what is asked, the same for both modalities; "" where the dataset does not say
    "protocol": "str",  # strict, or released: the prompts, shots and parsing of the benchmark's authors
    "step": "int64",  # optimiser steps the attacker has taken; 0 without attack
    "seen": "bool",  # whether the attacker was given this person's fact
    "held_out": "str",  # "person": not given; "fact": given, another fact; "": seen or no attack
}


class Damaged(ValueError):
    """A file of the study is not what was written: no result of any trial, but something to be repaired."""


def canonical(value: object) -> Json:
    """`value` as plain JSON: dataclasses become objects that name their type, without the fields that do not count
    when two are compared; sets are sorted.

    Raises `TypeError` for anything whose content could not be told from its text.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: canonical(getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, set | frozenset):
        return sorted(canonical(v) for v in value)
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{value!r} has no canonical form: use dataclasses, mappings, sequences and plain values")


def content_key(value: object) -> str:
    """Twelve hexadecimal digits of the content of `value`: equal content, equal key, on every machine."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_SILENT = ContextVar("silent", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """While the block lasts nothing is written: of several processes that do one job together, the first writes."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def writes() -> bool:
    """Whether what is to be written is written."""
    return not _SILENT.get()


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A draft beside `path` that takes its name when the block ends well: readers see all of a file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".draft", dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.chmod(0o644)  # mkstemp makes private files; a study on shared storage is read by others
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Force the files of a folder to disk, before the folder is renamed to where readers look for it."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def write_json(path: Path, value: Json) -> None:
    """Write `value` as indented JSON, atomically, unless this process is `silent`."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    if writes():
        with written(path) as draft:
            draft.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Json:
    """Read a JSON file. Raises `ValueError` that names the file if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"{path} is damaged ({error}): remove it and run the study again to rebuild it") from error


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write scored questions as parquet, atomically, with exactly the columns of `ROW_COLUMNS`, unless `silent`."""
    frame = rows[list(ROW_COLUMNS)].astype(ROW_COLUMNS)
    if writes():
        with written(path) as draft:
            frame.to_parquet(draft, engine="pyarrow", index=False, write_page_checksum=True)


def read_rows(path: Path) -> pd.DataFrame:
    """Read scored questions. Raises `ValueError` that names the file if it is not a whole row file."""
    try:
        return pd.read_parquet(path, engine="pyarrow", columns=list(ROW_COLUMNS), page_checksum_verification=True)
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise Damaged(f"{path} is damaged ({error}): remove it and run the study again to rebuild it") from error


def rows_at(path: Path) -> pd.DataFrame | None:
    """The rows at `path`, or nothing if they are missing or damaged."""
    if path.exists():
        with suppress(ValueError):
            return read_rows(path)
    return None


@dataclasses.dataclass(frozen=True)
class Folder:
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
