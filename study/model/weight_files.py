"""The weights of a model folder as the headers of its safetensors files tell them: no tensor is read.

Transformers itself gives the tensors their names in the model, on the meta device, so what is told here of a model of
any size, in seconds, is what loading would find.
"""

from __future__ import annotations

import copy
import json
import logging as levels
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from study.core.files import POINTER, visible

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
PICKLED = (".bin", ".pth", ".pt")
"""Of weights as torch.save writes them."""
MOST_HEADER = 100_000_000
"""Bytes of a header, as the safetensors format allows."""
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WHOLES = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "BOOL": torch.bool}
BYTES = {"I8": torch.int8, "U8": torch.uint8, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
"""Types in which weights are kept only where a model was quantized."""
DTYPES = FLOATS | WHOLES | BYTES
QUANTIZED = (
    ".qweight", ".qzeros", ".weight_packed", ".absmax", ".quant_map", ".SCB", ".weight_scale", ".weight_scale_inv",
)  # fmt: skip
"""The ends of names that only quantized checkpoints have (GPTQ and AWQ, compressed-tensors, bitsandbytes, FP8)."""
UNQUANTIZE = "take the model as it was before it was quantized; quantized=nf4 or int8 quantizes it after learning"
MERGE = "merge the adapter first (peft: merge_and_unload) and save the whole model with save_pretrained"
AGAIN = "download it again"


class _Foreign(ValueError):
    """A tensor whose type only quantized checkpoints have."""


class Stored(NamedTuple):
    """A tensor as a header describes it."""

    file: str
    dtype: str
    shape: tuple[int, ...]


def check_weights(folder: Path, model: Any) -> list[str]:
    """Check that the files of `folder` hold every weight of `model`, which is on the meta device.

    Returns the tensors that are left out because the model has no use for them. Raises `ValueError` that names the
    folder, the file or tensor, and the remedy that fits.
    """
    tensors = stored(folder)
    _check_types(folder, tensors)
    with _quietly(), _moving_nothing():
        try:
            _, found = type(model).from_pretrained(
                None,
                config=copy.deepcopy(model.config),
                state_dict={name: _empty(tensor) for name, tensor in tensors.items()},
                device_map={"": "meta"},
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=model.dtype,
            )
        except Exception as error:  # its conversions fail in ways of their own
            said = str(error).strip().splitlines() or [""]
            raise ValueError(f"{folder}: transformers cannot use its weights ({said[0]}); {AGAIN}") from error
    _check_found(folder, model, tensors, found)
    return sorted(found["unexpected_keys"])


def stored(folder: Path) -> dict[str, Stored]:
    """The tensors in the files that transformers would load, by their names there.

    Raises `ValueError` that names the file if one is missing, damaged, or not what it is called.
    """
    found: dict[str, Stored] = {}
    for path in _files(folder):
        for name, tensor in _header(path).items():
            if name in found:
                raise ValueError(f"{folder}: {name} is in {found[name].file} and in {tensor.file}; {AGAIN}")
            found[name] = tensor
    return found


# ---- files -----------------------------------------------------------------------------------------------------------
def _files(folder: Path) -> list[Path]:
    there = [path.name for path in visible(folder, "*.safetensors")]
    weights = [name for name in there if not name.startswith("adapter")]
    if there and not weights:
        raise ValueError(f"{folder}: {there[0]} is an adapter without its model; {MERGE}")
    pickled = [path for path in folder.iterdir() if path.suffix in PICKLED]
    if not there and not (folder / INDEX).exists() and not pickled:
        begun = "".join(f", but {path.name}" for path in visible(folder, "*.safetensors.*"))
        raise ValueError(
            f"{folder}: no .safetensors weights there{begun}; wait for the download, or take a revision with them"
        )
    if not there and not (folder / INDEX).exists():
        raise ValueError(
            f"{folder}: no .safetensors weights there; pickled ones can run code and are not loaded: save the "
            "model again with save_pretrained, or take a revision that has safetensors"
        )
    if not (folder / INDEX).exists():
        if WHOLE not in weights and not weights[1:]:
            raise ValueError(
                f"{folder}: {weights[0]}, but no {WHOLE}: if it is the whole model call it so, else download the rest "
                f"and {INDEX}"
            )
        if WHOLE not in weights:
            raise ValueError(
                f"{folder}: {', '.join(weights)}, but neither {WHOLE} nor {INDEX}, which says what is in which file; "
                "download the index"
            )
        return [folder / WHOLE]
    named = _indexed(folder)
    if WHOLE in weights and WHOLE not in named:
        raise ValueError(
            f"{folder}: both {WHOLE} and, by {INDEX}, {named[0]} and others: transformers would load the first alone; "
            "remove those that are not this model"
        )
    return [folder / name for name in named]


def _indexed(folder: Path) -> list[str]:
    """The files that the index names."""
    names = read_settings(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{folder}: {INDEX} has no weight_map of tensors and files; {AGAIN}")
    files = sorted(set(names.values()))
    if outside := [name for name in files if Path(name).name != name]:
        raise ValueError(f"{folder}: {INDEX} names {outside[0]}, which is not in the folder; {AGAIN}")
    if lost := [name for name in files if not (folder / name).exists()]:
        raise ValueError(f"{folder}: {INDEX} names {', '.join(lost)}, which are not there: download them again")
    return files


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a JSON file of a model. Raises `ValueError` that names it if it holds none."""
    content = read_file(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path.parent}: {path.name} holds {str(content)[:20]}, not settings by name; {AGAIN}")
    return content


def read_file(path: Path) -> Any:
    """The content of a JSON file of a model. Raises `ValueError` that names it if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.parent}: {path.name} is not JSON ({error}); {AGAIN}") from error


def _header(path: Path) -> dict[str, Stored]:
    """The tensors of a file, whose bytes must be exactly those of its header and its tensors."""
    size, where = path.stat().st_size, f"{path.parent}: {path.name}"
    with path.open("rb") as file:
        start = file.read(len(POINTER))
        if size == 0:
            raise ValueError(f"{where} is empty; {AGAIN}")
        if start == POINTER:
            raise ValueError(f"{where} is the pointer of git-lfs, not the file; run `git lfs pull` there, or {AGAIN}")
        length = int.from_bytes(start[:8], "little")
        if size < 8 or start[8:9] != b"{" or length > MOST_HEADER:
            raise ValueError(f"{where} is no safetensors file (it begins with {start[:16]!r}); {AGAIN}")
        if 8 + length > size:
            raise ValueError(f"{where} is truncated: it ends within its header; {AGAIN}")
        file.seek(8)
        content = file.read(length)
    try:
        header = json.loads(content)
        end, found = _tensors(path.name, header)
    except _Foreign as error:
        raise ValueError(
            f"{where} holds tensors of a type that no model is trained in, such as {error}; {UNQUANTIZE}"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where} has a damaged header ({error}); {AGAIN}") from error
    if size != 8 + length + end:
        what = "is truncated" if size < 8 + length + end else "has bytes of no tensor"
        raise ValueError(f"{where} {what}: {size:,} bytes, and its header tells of {8 + length + end:,}; {AGAIN}")
    return found


def _tensors(file: str, header: Any) -> tuple[int, dict[str, Stored]]:
    """Where the last tensor ends, and all of them. Raises `ValueError` if they overlap or leave gaps."""
    found: dict[str, Stored] = {}
    end = 0
    entries = ((name, entry) for name, entry in header.items() if name != "__metadata__")
    for name, entry in sorted(entries, key=lambda one: (one[1]["data_offsets"], one[0])):
        dtype, shape, (begin, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if dtype not in DTYPES:
            raise _Foreign(f"{name} ({dtype})")
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"{name} has the shape {shape}")
        if begin != end or stop - begin != math.prod(shape) * DTYPES[dtype].itemsize:
            raise ValueError(f"{name} of shape {shape} has the bytes {begin} to {stop}")
        found[name], end = Stored(file, dtype, shape), stop
    return end, found


# ---- against the model -----------------------------------------------------------------------------------------------
def _empty(tensor: Stored) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=DTYPES[tensor.dtype], device="meta")


@contextmanager
def _moving_nothing() -> Iterator[None]:
    """Within the block, weights that transformers would convert on the CPU (Qwen4-Exp's largest) stay on meta."""
    from transformers.core_model_loading import WeightConverter

    stated = vars(WeightConverter).get("force_cpu")
    if stated is None:  # a version that converts all weights where they are
        yield
        return
    converter: Any = WeightConverter
    converter.force_cpu = property(lambda _: False, lambda _, _value: None)
    try:
        yield
    finally:
        converter.force_cpu = stated


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bars and reports of transformers: what it finds is told in one sentence."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(levels.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _check_types(folder: Path, tensors: Mapping[str, Stored]) -> None:
    """Raise `ValueError` for weights that are quantized: transformers would take their numbers for the weights."""
    odd = [name for name, tensor in tensors.items() if tensor.dtype in BYTES or name.endswith(QUANTIZED)]
    if odd:
        tensor = tensors[odd[0]]
        raise ValueError(
            f"{folder}: {tensor.file} holds quantized weights, such as {odd[0]} ({tensor.dtype}); {UNQUANTIZE}"
        )


def _check_found(folder: Path, model: Any, tensors: Mapping[str, Stored], found: Mapping[str, Any]) -> None:
    missing, unknown = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    if missing or unknown:
        _check_prefixes(folder, tensors)
    if missing:
        others = f", and {len(unknown)} others are there, such as {unknown[0]}" if unknown else ""
        remedy = _why_others(model) if unknown else _untied(model, missing) or "download the folder again"
        raise ValueError(f"{folder}: {len(missing)} weights are missing, such as {missing[0]}{others}: {remedy}")
    if odd := sorted(found["mismatched_keys"]):
        name, theirs, ours = odd[0][0], tuple(odd[0][1]), tuple(odd[0][2])
        others = f", and {len(odd) - 1} others have another than config.json says" if odd[1:] else ""
        raise ValueError(
            f"{folder}: {name} has the shape {theirs}, not {ours}{others}; "
            f"{_remedy(model, [one[0] for one in odd], theirs, ours)}"
        )


def _why_others(model: Any) -> str:
    """Why a folder has other weights than its model."""
    named, needed = next(iter(model.config.architectures or ()), ""), type(model).__name__
    if named in ("", needed):
        return "config.json and the weights are not of one model"
    return f"they are those of a {named}, as config.json says, and a study needs a {needed}; take such a model"


def _untied(model: Any, missing: Sequence[str]) -> str:
    """The remedy where nothing but the output head is missing; empty if something else is."""
    head = getattr(model.get_output_embeddings(), "weight", None)
    names = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter is head}
    if not names.issuperset(missing):
        return ""
    return (
        "config.json does not tie the output head to the embeddings (tie_word_embeddings): if it does where the model "
        "was published take it from there, else download the folder again"
    )


def _check_prefixes(folder: Path, tensors: Collection[str]) -> None:
    """Raise `ValueError` if the names are those of a model inside of something else."""
    first = min(tensors, default="")
    if any(name.startswith("base_model.model.") or ".lora_" in name or ".base_layer." in name for name in tensors):
        raise ValueError(f"{folder}: the weights are those of a model with an adapter, such as {first}; {MERGE}")
    wrappers = {"module.": "data parallelism", "_orig_mod.": "torch.compile", "_fsdp_wrapped_module.": "FSDP"}
    for prefix, wrapper in wrappers.items():
        if tensors and all(name.startswith(prefix) for name in tensors):
            raise ValueError(
                f"{folder}: all weights are called {prefix}..., such as {first}: they were saved within {wrapper}; "
                "unwrap the model and save it with save_pretrained"
            )


def _remedy(model: Any, names: Sequence[str], theirs: tuple[int, ...], ours: tuple[int, ...]) -> str:
    heads = (model.get_input_embeddings(), model.get_output_embeddings())
    ids = {id(head.weight) for head in heads if head is not None}
    of_tokens = {name for name, parameter in model.named_parameters(remove_duplicate=False) if id(parameter) in ids}
    if of_tokens.issuperset(names) and theirs[1:] == ours[1:]:
        return (
            f"the embeddings are those of a vocabulary of {theirs[0]}, not {ours[0]}: take config.json, the tokenizer "
            "and the weights from one source, or save the model again after resize_token_embeddings"
        )
    return "take config.json and the weights from one source"
