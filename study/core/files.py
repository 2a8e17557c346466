"""Files of a study, which appear whole or not at all. No torch here, so that the analysis can read them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from study.core.errors import Damaged
from study.core.hashing import Json

_SILENT = ContextVar("silent", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """Within the block nothing is written: of several processes that do one job together, only the first writes."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def writes() -> bool:
    """Whether this process writes files."""
    return not _SILENT.get()


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A draft beside `path` that is renamed to it if the block succeeds: readers see all of a file or none."""
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
    """Force the files of a folder to disk, before the folder gets the name under which readers look for it."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def visible(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that fit a pattern, by name, without hidden ones.

    Copies made on a Mac have a hidden `._x.parquet` beside every `x.parquet`, which is no such file.
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


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
