"""A copy of a study in object storage, which is kept up to date while the study runs and can be fetched again.

A study works in a POSIX folder: its promises rest on renames and locks, and object stores have neither. What survives
the machine is a copy of that folder at any address that pyarrow knows (s3, gs, abfs, hdfs, file).
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import ArrowException
from pyarrow import fs as arrow

from study.core.files import inside, read_json, written
from study.core.hashing import Json
from study.core.layout import DISPOSABLE, StudyFolder
from study.core.repeating import repeated
from study.core.signals import before_the_end

WHOLE = ("s3", "gcs", "abfs")
"""File systems on which a file appears when its upload is complete and not before: no draft is needed there."""
PERIOD = 60.0
"""Seconds between two copies of what is new: the work that a lost machine loses at most, besides an upload."""

Seen = dict[str, tuple[int, int]]
"""Size in bytes and modification time in nanoseconds of files that were already copied, by name."""


Tell = Callable[[str], None]
"""Where warnings go."""


@dataclass(frozen=True)
class Place:
    """A folder in a file system."""

    filesystem: Any
    path: str

    def at(self, name: str) -> str:
        """The address of a file of the study."""
        return f"{self.path.rstrip('/')}/{name}"


def refuse_address(folder: Path) -> None:
    """Refuse an address as study folder. Raises `ValueError` with the remedy."""
    if re.fullmatch(r"[a-z][a-z0-9+.-]+:", str(folder).split("/")[0]):
        raise ValueError(
            f"study_dir={str(folder)!r} is an address, but a study works in a folder: it renames and locks files, "
            "which neither object stores nor mounts of them can do. Give a folder (on a cluster one that all nodes "
            "mount by NFS, such as EFS, FSx or Filestore) and let --storage keep a copy at the address"
        )


def shown(text: str) -> str:
    """A text without the keys and secrets that addresses in it begin with."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def place(uri: str) -> Place:
    """The place that an address such as s3://bucket/runs/mine names. Raises `ValueError` if pyarrow cannot use it."""
    try:
        filesystem, path = arrow.FileSystem.from_uri(_in_one_request(uri))
    except (ArrowException, OSError) as error:
        told = shown(f"storage={uri!r} cannot be used ({error})")
        raise ValueError(f"{told}: give s3://BUCKET/FOLDER or the like") from error
    if not path.strip("/"):
        raise ValueError(f"storage={shown(uri)!r} names no folder: add one, so that a bucket can hold several studies")
    return Place(filesystem, path)


def _in_one_request(uri: str) -> str:
    """The address with what lets a small file be put into S3 by one request instead of three."""
    if not uri.startswith("s3://") or "allow_delayed_open=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def fetch(there: Place, root: Path, *, growing: tuple[str, ...] = ()) -> int:
    """Fetch a study whose folder `root` has no study.json; returns how many files were copied.

    Files come in the order in which they were written and study.json last, each whole or not at all, so an interrupted
    fetch can continue. A study that exists here is only compared: raises `ValueError` if the copy is of another study
    (whose settings differ in more than those in `growing`) or lies within this one, and `Damaged` if a name leads out
    of the folder.
    """
    if isinstance(there.filesystem, arrow.LocalFileSystem) and Path(there.path).resolve().is_relative_to(
        root.resolve()
    ):
        raise ValueError(
            f"storage: {there.path} lies in the study folder {root}, of which it is to be a copy; name another"
        )
    home = StudyFolder(root).settings
    files = _remote(there)
    if home.name not in files:
        return 0
    if home.exists():
        _same_study(there, home, growing)
        return 0
    copied = 0
    targets = {name: inside(root, name) for name in files}  # a bucket may be written to by others
    for name in sorted(files, key=lambda name: (name == home.name, files[name].mtime_ns, name)):
        target, info = targets[name], files[name]
        if target.exists() and target.stat().st_size == info.size and target.stat().st_mtime_ns >= info.mtime_ns:
            continue
        with written(target) as draft:
            _copy(there.filesystem, info.path, arrow.LocalFileSystem(), str(draft), info.size)
        os.utime(target, ns=(info.mtime_ns, info.mtime_ns))  # so that it does not count as new
        copied += 1
    return copied


def push(root: Path, there: Place, seen: Seen) -> int:
    """Copy what is new or changed, in the order in which it was written; returns how many files were copied.

    That order makes the copy a consistent earlier state of the study, whenever it stops: a record never precedes its
    rows. Each file is whole or absent, and none is ever removed. `seen` lists earlier copies and is updated.
    """
    found = {name: (path.stat().st_size, path.stat().st_mtime_ns) for name, path in _local(root)}
    new = {name: state for name, state in found.items() if seen.get(name) != state}
    files = _remote(there) if not seen else {}  # nobody else writes there once the study runs
    copied = 0
    for name, state in sorted(new.items(), key=lambda item: (item[1][1], item[0].endswith(".json"), item[0])):
        info = files.get(name)
        if not (root / name).exists():  # a note on progress that has served its purpose
            continue
        if info is None or info.size != state[0] or info.mtime_ns < state[1]:
            _upload(root / name, there, name)
            copied += 1
        seen[name] = state
    return copied


@contextmanager
def mirrored(root: Path, uri: str, tell: Tell, *, period: float = PERIOD) -> Iterator[None]:
    """Keep a copy of `root` at `uri` up to date while the block runs and when it ends, however it ends.

    Errors on the way are reported and the copy is tried again; an error at the end is an `OSError` that names the
    remedy. Where the process ends at once, there may not be time enough for all of it, which is said. No address, no
    copy.
    """
    if not uri:
        yield
        return
    there, seen, one_at_a_time = place(uri), Seen(), threading.Lock()

    def copy() -> str:
        """Why the copy failed, if it did."""
        try:
            with one_at_a_time:
                push(root, there, seen)
        except (ArrowException, OSError) as error:
            return f"({error})"
        return ""

    def keep() -> None:
        if failed := copy():  # a network that is away for a while ends no study
            told = shown(f"{uri} cannot be written at the moment {failed}")
            tell(f"storage: {told}; next attempt in {period:g} s")

    def finish() -> str:
        failed = copy()
        return shown(f"{uri} lacks the latest files of {root} {failed}: run again to copy them") if failed else ""

    def hurry() -> None:
        if lacking := finish():
            tell(f"storage: {lacking}")

    ended = False
    unfinished = f"storage: {shown(uri)} may lack the latest files of {root}: run again to copy them"
    try:
        with before_the_end(hurry, unfinished), repeated(keep, period):
            yield
        ended = True
    finally:
        if lacking := finish():
            if ended:
                raise OSError(lacking)
            tell(f"storage: {lacking}")  # no exception here: it would hide the one that ended the study


def _upload(source: Path, there: Place, name: str) -> None:
    """Copy one file so that it appears whole."""
    target = there.at(name)
    there.filesystem.create_dir(target.rpartition("/")[0], recursive=True)
    size = source.stat().st_size
    if _kind(there.filesystem) in WHOLE:
        _copy(arrow.LocalFileSystem(), str(source), there.filesystem, target, size)
        return
    folder, _, last = target.rpartition("/")
    draft = f"{folder}/.{last}.draft"
    _copy(arrow.LocalFileSystem(), str(source), there.filesystem, draft, size)
    there.filesystem.move(draft, target)


def _copy(one: Any, source: str, other: Any, target: str, size: int) -> None:
    """Copy a file between file systems. Raises `OSError` if what arrived has another size."""
    arrow.copy_files(source, target, source_filesystem=one, destination_filesystem=other, use_threads=False)
    arrived = other.get_file_info(target).size
    if arrived != size:
        raise OSError(f"{target} has {arrived} bytes of {size}")


def _kind(filesystem: Any) -> str:
    """The type of a file system, seen through the folders it is narrowed to."""
    while filesystem.type_name == "subtree":
        filesystem = filesystem.base_fs
    return str(filesystem.type_name)


def _local(root: Path) -> Iterator[tuple[str, Path]]:
    """The files of a study worth keeping, so none that is rebuilt when missing.

    A folder's own come before those of its subfolders are looked at.
    """
    for folder, below, names in os.walk(root):
        if Path(folder) == root:
            below[:] = [name for name in below if name not in DISPOSABLE]
        below[:] = [name for name in below if not name.startswith(".")]  # a model that is being written
        for name in names:
            path = Path(folder) / name
            if not name.startswith(".") and path.exists() and not path.is_symlink():  # a link may lead anywhere
                yield path.relative_to(root).as_posix(), path


def _remote(there: Place) -> Mapping[str, Any]:
    """The files of the copy by name; drafts of an upload that was cut off are none."""
    selector = arrow.FileSelector(there.path, recursive=True, allow_not_found=True)
    files = (info for info in there.filesystem.get_file_info(selector) if info.is_file)
    named = {info.path.strip("/").removeprefix(there.path.strip("/")).strip("/"): info for info in files}
    return {name: info for name, info in named.items() if not name.rpartition("/")[2].startswith(".")}


def _same_study(there: Place, home: Path, growing: tuple[str, ...]) -> None:
    with there.filesystem.open_input_stream(there.at(home.name)) as stream:
        theirs = _lasting(json.loads(stream.read())["settings"], growing)
    ours = _lasting(read_json(home)["settings"], growing)
    if changed := sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)):
        raise ValueError(
            f"storage={there.path!r} holds another study than {home.parent} ({', '.join(changed)} differ): name "
            "another address, or move the folder away to fetch the copy"
        )


def _lasting(settings: Mapping[str, Json], growing: tuple[str, ...]) -> dict[str, Json]:
    return {name: value for name, value in settings.items() if name not in growing}
