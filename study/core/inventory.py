"""Every file that a finished run left, with its digest: what is missing is computed again, what has changed is named.

A run in progress has an empty inventory: what it writes is whole by itself, and nobody could say what is missing yet.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    write_json(folder.inventory, {"files": files})


def clear(folder: StudyFolder) -> None:
    """Say that a run is in progress."""
    if folder.inventory.exists():
        write_json(folder.inventory, {"files": {}})


def is_taken(folder: StudyFolder) -> bool:
    """Whether a run has ended, and none is in progress."""
    return bool(_listed(folder))


def problems(folder: StudyFolder) -> list[Problem]:
    """What is missing or has changed since the last run ended; nothing where none has ended, or one is in progress."""
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


def mend(folder: StudyFolder) -> list[str]:
    """Make room for what is missing: whatever was made together with it is removed; returns the names of the files.

    Raises `Damaged` if a file has changed: there may be a copy of it, so that is for the user to remove.
    """
    found = problems(folder)
    for problem in found:
        if problem.kind == "changed":
            raise Damaged(f"{folder.root}: {problem}")
    groups = {folder.group(problem.name) for problem in found}
    for name in _listed(folder) if groups else ():
        if folder.group(name) in groups:
            (folder.root / name).unlink(missing_ok=True)
    for group in groups:
        if (folder.root / group).is_dir():
            shutil.rmtree(folder.root / group)
    return [problem.name for problem in found]


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
