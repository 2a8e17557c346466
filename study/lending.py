"""The learned model that the jobs of one process share, one after another: loaded once, put back after each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from study.chunks import Chunks, release
from study.deltas import put_back
from study.learning import load_learned
from study.vlm import VLM


@dataclass(frozen=True, eq=False)
class Held:
    """A learned model, and its weights as they were taught."""

    vlm: VLM
    weights: Mapping[str, Tensor]
    """In main memory, as pages of the file they are in: processes of one machine share them."""


_held: dict[tuple[Path, str, str], Held] = {}


def held(root: Path, key: str, device: str) -> Held:
    """A learned model on a device; the one that was held before is let go first, as two might not fit.

    Raises `ValueError` naming the file if its weights are damaged.
    """
    wanted = (root, key, device)
    if wanted not in _held:
        put_away()
        vlm = load_learned(root, key, device)
        taught = load_learned(root, key, checked=False, as_taught=True).tensors()
        _held[wanted] = Held(vlm, {name: taught[name] for name in vlm.tensors()})  # what codes stand for never changes
    return _held[wanted]


def is_held(root: Path, key: str, device: str) -> bool:
    """Whether a learned model is there without being loaded."""
    return (root, key, device) in _held


def put_away() -> None:
    """Let go of the model that is held."""
    if _held:
        _held.clear()
        release()


@contextmanager
def lent(root: Path, key: str, device: str, chunks: Chunks | None = None) -> Iterator[tuple[VLM, Mapping[str, Tensor]]]:
    """Lend a learned model out, with its weights as they were taught; what the borrower changes is put back.

    Its forwards are cut into `chunks`.
    """
    there = held(root, key, device)
    try:
        yield replace(there.vlm, chunks=chunks or Chunks()), there.weights
    except BaseException:
        if there.vlm.spread is None:
            _returned(there)
        else:  # it takes all processes to put that back, and the others may not have failed
            put_away()
        raise
    _returned(there)


def _returned(there: Held) -> None:
    try:
        put_back(there.vlm, there.weights)
    except BaseException:  # memory ran out once more: nobody must be lent what the last borrower left
        put_away()
        raise
    if there.vlm.spread is not None:
        release()  # FSDP's copies refer to themselves: they would stay until somebody looks for such
