"""Where the files of a dataset may lie: links that lead out of it are not followed."""

from __future__ import annotations

from pathlib import Path


def whole_of(folder: Path, *, snapshot: bool) -> Path:
    """The folder that the files of a dataset lie in: its own, or of a snapshot of the hub the one with the files beside
    it, to which it links."""
    whole = folder.resolve()
    return whole.parents[1] if snapshot else whole


def followed(path: Path, name: str, within: Path) -> Path:
    """The file, which may be missing, that a path or link stands for.

    Raises `ValueError` with the `name` for a link that leads out of the folder `within`, or nowhere.
    """
    try:
        real = path.resolve(strict=path.is_symlink())
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, or a NUL in its name
        raise ValueError(f"{name}: it leads nowhere ({error}); put a copy of the file in its place") from error
    if not real.is_relative_to(within):
        raise ValueError(f"{name}: it leads out of the dataset, to {real}; put a copy of the file in its place")
    return real
