"""Every file that a finished run left, with its digest: what is missing is computed again, what has changed is named.

A run in progress has an empty inventory: what it writes is whole by itself, and nobody could say what is missing yet.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from study.core import erasure
from study.core.errors import Damaged
from study.core.files import inside, read_json, write_json
from study.core.hashing import Json, file_digest
from study.core.layout import RESULTS, StudyFolder


@dataclass(frozen=True)
class Problem:
    """A file of a finished run that is not as it was."""

    name: str
    """Within the study's folder."""
    kind: Literal["missing", "changed"]
    remedy: str

    def __str__(self) -> str:
        what = "is missing" if self.kind == "missing" else "is damaged: it is not what was written"
        return f"{self.name} {what}; {self.remedy}"


def take(folder: StudyFolder) -> None:
    """Write down all files of a run that has ended."""
    files = {name: _entry(folder, name) for name in sorted(_names(folder))}
    taught = {path.parent.name: read_json(path)["sha256"] for path in folder.learned_records()}
    write_json(folder.inventory, {"files": files, "taught": taught})


def clear(folder: StudyFolder) -> None:
    """Say that a run is in progress; the digests of learned models stay, for what the run teaches anew."""
    if folder.inventory.exists():
        write_json(folder.inventory, {"files": {}, "taught": _taught(folder)})


def check_taught(folder: StudyFolder, key: str, digests: Json) -> None:
    """Raise `Damaged` if a model is taught anew with other weights than those that trials on disk began from.

    Their deltas would be applied to another start. Not every device computes the same bits again.
    """
    before = _taught(folder).get(key)
    if before in (None, digests) or not any(_begins_from(key, path) for path in folder.trial_records()):
        return
    raise Damaged(
        f"{folder.learned(key)} was lost, and teaching it anew yields other weights than those that its trials began "
        f"from: put it back from a copy, or remove trials, search, attack_search and cache in {folder.root} and run "
        "the same command again"
    )


def _begins_from(key: str, record: Path) -> bool:
    return bool(read_json(record)["start"]["key"] == key)


def _taught(folder: StudyFolder) -> dict[str, Json]:
    """The digests of the weights of every model that was there when a run last ended, by key."""
    content = read_json(folder.inventory) if folder.inventory.exists() else {}
    found = content.get("taught", {}) if isinstance(content, dict) else {}
    return found if isinstance(found, dict) else {}


def is_taken(folder: StudyFolder) -> bool:
    """Whether a run has ended, and none is in progress."""
    return bool(_listed(folder))


def problems(folder: StudyFolder) -> list[Problem]:
    """What is missing or has changed since the last run ended; nothing where none has ended, or one is in progress.

    Raises `Purged` if files are missing because they were removed on purpose.
    """
    erasure.check(folder)
    found: list[Problem] = []
    for name, entry in _listed(folder).items():
        path = folder.root / name
        if not path.is_file():
            found.append(Problem(name, "missing", "run the same command again, which computes it anew"))
        elif _entry(folder, name) != entry:
            what = folder.root / folder.remedy(name)
            remedy = f"put it back from a copy, or remove {what} and run the same command again, which computes it anew"
            found.append(Problem(name, "changed", remedy))
    return found


def foreign(folder: StudyFolder) -> list[str]:
    """The files among the results that the last run did not leave; none where no run has ended."""
    listed = _listed(folder)
    return sorted(set(_names(folder)) - listed.keys()) if listed else []


def check(folder: StudyFolder) -> None:
    """Raise `Damaged` if a file is missing or has changed since the last run ended."""
    for problem in problems(folder):
        raise Damaged(f"{folder.root}: {problem}")


def lost(folder: StudyFolder) -> list[str]:
    """The files that are missing since the last run ended.

    Raises `Damaged` if a file has changed: there may be a copy of it, so that is for the user to remove.
    """
    found = problems(folder)
    for problem in found:
        if problem.kind == "changed":
            raise Damaged(f"{folder.root}: {problem}")
    return [problem.name for problem in found]


def make_room(folder: StudyFolder, names: Iterable[str]) -> None:
    """Remove whatever was made together with files that are missing, so that all of it is made anew."""
    groups = {folder.group(name) for name in names if not (folder.root / name).is_file()}
    for name in _listed(folder) if groups else ():
        if folder.group(name) in groups:
            (folder.root / name).unlink(missing_ok=True)
    for group in groups:
        if (folder.root / group).is_dir():
            shutil.rmtree(folder.root / group)


def _listed(folder: StudyFolder) -> dict[str, Json]:
    """What the inventory lists. A study may come from somebody else, and what it names may be removed: only results."""
    if not folder.inventory.exists():
        return {}
    content = read_json(folder.inventory)
    listed = content.get("files", {}) if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not all(folder.is_result(name) for name in listed):
        raise Damaged(f"{folder.inventory} is damaged: remove it and run the same command again")
    for name in listed:
        inside(folder.root, name)
    return listed


def _entry(folder: StudyFolder, name: str) -> Json:
    """The size of a file and its digest. Weights have theirs in their own record, which is checked when they load."""
    path = folder.root / name
    size = path.stat().st_size
    return {"bytes": size} if folder.has_own_digest(name) else {"bytes": size, "sha256": file_digest(path)}


def _names(folder: StudyFolder) -> Iterator[str]:
    for top, below, names in os.walk(folder.root):
        here = Path(top).relative_to(folder.root)
        below[:] = [name for name in below if not name.startswith(".")]
        if not here.parts:
            below[:] = [name for name in below if name in RESULTS]
        for name in names:
            if not name.startswith(".") and folder.is_result(path := (here / name).as_posix()):
                yield path
