"""Files of a study, which appear whole or not at all. No torch here, so that the analysis can read them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from study.core.errors import REBUILT, Damaged, DiskFull, Refused
from study.core.hashing import Json

POINTER = b"version https://git-lfs"
"""How a file begins that git left in the place of a large one."""
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
def written(path: Path, size: int = 0) -> Iterator[Path]:
    """A draft beside `path` that is renamed to it if the block succeeds: readers see all of a file or none.

    Raises `DiskFull` where there is no room for it; `size` are its bytes, where they are known.
    """
    with room_for(path, size):
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


@contextmanager
def written_folder(path: Path, size: int = 0, *, over: bool = False) -> Iterator[Path]:
    """A draft beside `path` that is renamed to it if the block succeeds: readers see all of a folder or none.

    One that is there by then stays, as another process was faster, unless this is written `over` it. Raises `DiskFull`
    as `written`.
    """
    with room_for(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".draft", dir=path.parent))
        try:
            yield draft
            for file in filter(Path.is_file, draft.rglob("*")):
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
            draft.chmod(0o755)  # mkdtemp makes private folders; a study on shared storage is read by others
            if over:
                shutil.rmtree(path, ignore_errors=True)
            try:
                draft.rename(path)
            except OSError:
                if over or not path.is_dir():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def room_for(path: Path, size: int = 0) -> Iterator[None]:
    """Raise `DiskFull` for a file, or a folder, of so many bytes if the block finds no room for it on the disk."""
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        there = next(folder for folder in path.parents if folder.exists())
        needs = f"{size:,} bytes" if size else "more"
        raise DiskFull(
            f"the disk is full: {path} needs {needs}, and {shutil.disk_usage(there).free:,} bytes are free; make room "
            "and run the same command again"
        ) from error


def sweep(drafts: Iterable[Path]) -> None:
    """Remove drafts, files and folders, that were left by runs which were killed."""
    for path in drafts:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full, or this user's share of it; libraries say so in words."""
    told = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return told or isinstance(error, DiskFull) or os.strerror(errno.ENOSPC) in str(error)


def inside(root: Path, name: str) -> Path:
    """The file of a folder with a name that somebody else chose. Raises `Damaged` if it lies elsewhere."""
    path = root / name
    if ".." in path.parts or "\0" in name or not (path.parent.resolve() / path.name).is_relative_to(root.resolve()):
        raise Damaged(f"the name {name!r} leads out of {root}: remove that file where it is stored")
    return path


def visible(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that fit a pattern, by name, without hidden ones.

    Copies made on a Mac have a hidden `._x.parquet` beside every `x.parquet`, which is no such file.
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def is_pointer(path: Path) -> bool:
    """Whether git left a file in the place of a large one, which `git lfs pull` brings."""
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def check_writable(folder: Path, what: str, option: str) -> None:
    """Raise `Refused` if files cannot be written to a folder, which need not be there; `option` chose it."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise Refused(f"{what} {folder}: {there} is a file; choose another {option}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Refused(f"{what} {folder}: {there} cannot be written; choose another {option}")


def write_json(path: Path, value: Json) -> None:
    """Write `value` as indented JSON, atomically, unless this process is `silent`."""
    data = (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
    if writes():
        with written(path, len(data)) as draft:
            draft.write_bytes(data)


def read_json(path: Path) -> Json:
    """Read a JSON file. Raises `Damaged` that names the file if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"{path} is damaged ({error})", REBUILT) from error


def read_object(path: Path, *needed: str) -> dict[str, Json]:
    """Read a JSON file that holds an object with these fields. Raises `Damaged` that names the file if it does not."""
    content = read_json(path)
    if not isinstance(content, dict) or not content.keys() >= {*needed}:
        with_these = f" with {', '.join(needed)}" if needed else ""
        raise Damaged(f"{path} is damaged (it holds no object{with_these} but {content!r:.40})", REBUILT)
    return content
