"""Tensors on disk: safetensors with a checksum, whole or absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from study.core.errors import REBUILT, Damaged
from study.core.files import read_json, visible, write_json, writes, written
from study.core.hashing import file_digest


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically, with a SHA-256 beside them: safetensors has no checksum of its own.

    The checksum is written first, so that a file that is there can be checked. A `silent` process writes nothing.
    """
    if not writes():
        return
    kept = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
    with written(path, sum(t.nbytes for t in kept.values())) as draft:
        save_file(kept, draft)
        write_json(digest_beside(path), {"sha256": file_digest(draft)})


def digest_beside(path: Path) -> Path:
    """The checksum of tensors."""
    return path.with_suffix(".sha256.json")


def remove_tensors(path: Path) -> None:
    """Delete tensors and their checksum."""
    path.unlink(missing_ok=True)
    digest_beside(path).unlink(missing_ok=True)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors. Raises `Damaged` naming the file if it is damaged."""
    if not is_sound(path):
        raise Damaged(f"{path} is damaged (its SHA-256 is not the recorded one)", REBUILT)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise Damaged(f"{path} is damaged ({error})", REBUILT) from error


def is_sound(path: Path) -> bool:
    """Whether tensors have the checksum that lies beside them."""
    found, recorded = {"sha256": file_digest(path)}, digest_beside(path)
    return recorded.exists() and bool(read_json(recorded) == found)


def digests_in(model: Path) -> dict[str, str]:
    """The SHA-256 of each weight file of a model folder."""
    return {path.name: file_digest(path) for path in visible(model, "*.safetensors")}


def damaged_in(model: Path, digests: Mapping[str, str]) -> Iterator[Path]:
    """The weight files of a model folder that are missing or do not have these digests."""
    for name, digest in digests.items():
        path = model / name
        if not path.exists() or file_digest(path) != digest:
            yield path
