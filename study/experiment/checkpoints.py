"""Learned models on disk and in memory: saved, loaded, borrowed and restored; unlearned models rebuilt from deltas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from study.core import inventory
from study.core.errors import Damaged
from study.core.files import visible, written_folder
from study.core.hashing import content_key, file_digest
from study.core.layout import StudyFolder
from study.core.records import LearnedRecord, TrialRecord, read_record
from study.engine.microbatches import MicroBatching, release
from study.model.delta import apply_delta, names_in, restore
from study.model.loading import Loading, load
from study.model.quantization import as_numbers
from study.model.tensor_files import damaged_in, digests_in, load_tensors
from study.model.vlm import VLM, TokenIds


@dataclass(frozen=True, eq=False)
class CachedModel:
    """A learned model, and its weights as they were taught."""

    vlm: VLM
    weights: Mapping[str, Tensor]
    """In main memory, as pages of the file they are in: processes of one machine share them."""


_cached: dict[tuple[Path, str, str], CachedModel] = {}
_read: dict[str, TokenIds] = {}
"""The tokens of the texts that a process has met, by the digest of what the models that read them so are set to."""


def cached(root: Path, key: str, device: str) -> CachedModel:
    """A learned model on a device; the one that was held before is let go first, as two might not fit.

    Raises `ValueError` naming the file if its weights are damaged.
    """
    wanted = (root, key, device)
    if wanted not in _cached:
        evict()
        vlm = load_learned(root, key, device)
        taught = load_learned(root, key, checked=False, as_taught=True).tensors()
        # of a quantized LLM there are no tensors here: what its codes stand for never changes
        _cached[wanted] = CachedModel(vlm, {name: taught[name] for name in vlm.tensors()})
    return _cached[wanted]


def is_cached(root: Path, key: str, device: str) -> bool:
    """Whether a learned model is there without being loaded."""
    return (root, key, device) in _cached


def evict() -> None:
    """Let go of the model that is held."""
    if _cached:
        _cached.clear()
        release()


@contextmanager
def borrowed(
    root: Path, key: str, device: str, chunks: MicroBatching | None = None
) -> Iterator[tuple[VLM, Mapping[str, Tensor]]]:
    """Lend a learned model out, with its weights as they were taught; what the borrower changes is put back.

    Its forwards are cut into `chunks`.
    """
    there = cached(root, key, device)
    try:
        yield replace(there.vlm, chunks=chunks or MicroBatching(), adapters={}), there.weights
    except BaseException:
        if there.vlm.sharded is None:
            _returned(there)
        else:  # it takes all processes to put that back, and the others may not have failed
            evict()
        raise
    _returned(there)


def _returned(there: CachedModel) -> None:
    try:
        restore(there.vlm, there.weights)
    except BaseException:  # memory ran out once more: nobody must be lent what the last borrower left
        evict()
        raise
    if there.vlm.sharded is not None:
        release()  # FSDP's copies refer to themselves: they would stay until somebody looks for such


def load_learned(root: Path, key: str, device: str = "cpu", *, checked: bool = True, as_taught: bool = False) -> VLM:
    """Load a learned model as its study asks for it; or `as_taught`, which is unquantized and in one piece.

    Raises `Damaged` naming the file if it is `checked` and is not what was written. What does not load although its
    weights are sound is not lost, and to teach it anew would not help: that error passes as it is.
    """
    folder = StudyFolder(root)
    model, taught = folder.model_dir(key), read_record(LearnedRecord, folder.learned_record(key))
    for path in damaged_in(model, taught.sha256) if checked else ():
        raise Damaged(f"{path} is damaged", f"remove {folder.learned(key)} and run the study again")
    loading = Loading.of(taught)
    vlm = load(model, device, loading.as_taught if as_taught else loading, whole=as_taught)
    return vlm.reading_with(_read.setdefault(_settings_digest(model), {}))


def _settings_digest(model: Path) -> str:
    """The SHA-256 of all files of a model folder but its weights. All models of a study are set to the same."""
    files = (path for path in visible(model, "**/*") if path.is_file() and path.suffix != ".safetensors")
    return content_key({path.relative_to(model).as_posix(): file_digest(path) for path in files})


def save(vlm: VLM, folder: Path) -> dict[str, str]:
    """Write a model with its processor as a Hugging Face folder, whole or not at all; the SHA-256 of its weights.

    Codes are written as the numbers that they stand for.
    """
    with written_folder(folder, sum(tensor.nbytes for tensor in vlm.tensors().values()), over=True) as draft:
        vlm.model.save_pretrained(draft, state_dict=as_numbers(vlm.model) if vlm.quantized else None)
        vlm.processor.save_pretrained(draft)
    digests = digests_in(folder)
    assert digests, f"no weights were saved under {folder}"
    return digests


def unlearned_model(folder: StudyFolder, key: str, vlm: VLM) -> tuple[VLM, list[str]]:
    """The model a finished trial left, and the names of the tensors that differ from its start.

    It is rebuilt on `vlm`, which is its start, from its delta and its instruction. Raises `Damaged` if these are gone.
    """
    instruction = read_record(TrialRecord, folder.record(key)).instruction
    if folder.dropped(key).exists() and not folder.delta(key).exists():
        raise Damaged(
            f"the weights of trial {key} were deleted because it had not won (--keep winners): remove the folder "
            f"{folder.trial(key)} and run the study again with --keep all, which runs the trial anew"
        )
    with repairable(folder, key):
        kept = load_tensors(folder.delta(key))
        apply_delta(vlm, kept)
    return vlm.with_instruction(instruction) if instruction else vlm, names_in(kept)


@contextmanager
def repairable(folder: StudyFolder, key: str) -> Iterator[None]:
    """A finished trial is not run again for a file that it lost: say what has to go for that, in place of that file.

    Between two runs it is enough that the file goes: the next one knows what was made together with it.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, Damaged) and inventory.is_taken(folder):
            raise
        what = error.what if isinstance(error, Damaged) else str(error)
        remedy = f"remove {folder.trial(key)} and run the study again, which runs trial {key} anew"
        raise Damaged(what, remedy) from error
